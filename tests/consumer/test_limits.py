"""What a worker process is bound to, seen from inside one."""

import os
import resource
import subprocess
import sys
from pathlib import Path

from consumer.errors import RecordingUndecodable, WorkerTooLarge
from consumer.limits import OPEN_FILES, WorkerLimits, data_bytes
from consumer.media import FileMedia
from consumer.pool import WorkerPool
from consumer.video import open_recording
from tests import clips
from tests.consumer.pools import answers

MIB = 1024**2


def look_inside(task: str) -> str:
    """Run in a worker: report on its own limits."""
    match task:
        case "core":
            return str(resource.getrlimit(resource.RLIMIT_CORE))
        case "files":
            opened: list[int] = []
            try:
                while len(opened) < 10 * OPEN_FILES:
                    opened.append(os.open("/dev/null", os.O_RDONLY))
            except OSError as error:
                return f"{error.errno} {len(opened) < OPEN_FILES}"
            finally:
                for each in opened:
                    os.close(each)
    return "?"


def inside(task: str) -> str:
    with WorkerPool(look_inside, workers=1, time_limit_seconds=60.0, limits=WorkerLimits(512 * MIB)) as pool:
        pool.submit(0, task)
        return str(answers(pool, 1)[0])


def test_a_worker_leaves_no_core_file() -> None:
    assert inside("core") == "(0, 0)"


def test_a_worker_that_leaks_files_meets_its_own_limit() -> None:
    assert inside("files") == "24 True"  # EMFILE


_CRASH = """
import os
from consumer.limits import seal
seal()
os.kill(os.getpid(), 11)
"""

_READ = """
import os, tempfile
from consumer.limits import seal
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)  # a process of root may read everything
seal()
with tempfile.TemporaryFile(dir="/tmp") as file:
    file.write(b"recording")
    file.flush()
    print(open(f"/proc/self/fd/{file.fileno()}", "rb").read().decode())
"""


def python(code: str, directory: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=_let_cores_be_written,
    )


def _let_cores_be_written() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (most, most))


def test_a_sealed_process_that_crashes_leaves_no_core_file(tmp_path: Path) -> None:
    done = python(_CRASH, tmp_path)
    assert done.returncode == -11, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_sealed_process_of_an_ordinary_user_still_reads_its_own_unnamed_files(tmp_path: Path) -> None:
    done = python(_READ, tmp_path)
    assert done.stdout == "recording\n", done.stderr


def decode_in_little_memory(path: str) -> str:
    """Run in a worker: decode a recording with far less memory than its reference pictures take."""
    room = data_bytes() + 64 * MIB
    resource.setrlimit(resource.RLIMIT_DATA, (room, room))
    try:
        with open_recording(FileMedia(Path(path))) as recording:
            return f"{len(list(recording.sample(4)))} frames, {recording.partial}"
    except RecordingUndecodable as error:
        return str(error)


def test_a_recording_that_memory_does_not_suffice_for_is_not_taken_for_damaged(tmp_path: Path) -> None:
    clip = clips.Clip(
        frames=24,
        width=2560,
        height=1440,
        keyframe_every=24,
        encoder_options={"preset": "ultrafast", "refs": "16"},
    )
    large = clips.write(tmp_path / "large.mp4", clip)
    with WorkerPool(decode_in_little_memory, workers=1, time_limit_seconds=60.0) as pool:
        pool.submit(0, str(large))
        answer = answers(pool, 1)[0]
    assert isinstance(answer, WorkerTooLarge), answer
