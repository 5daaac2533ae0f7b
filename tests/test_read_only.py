"""A pod needs no rights: it runs as a user without any, and writes to TMPDIR and /dev/shm alone."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from modelops.embedded import EmbeddedTriton
from tests import clips
from tests.brokers.kafka import KafkaBroker
from tests.fakes.faulty_vault import FaultyVault
from tests.pods import Pod
from tests.worlds import World

SEALED = [
    "unshare",
    "--user",
    "--map-root-user",
    "--mount",
    "sh",
    str(Path(__file__).with_name("sealed_root.sh")),
]

LOOK = """
import os, pathlib, sys
status = pathlib.Path("/proc/self/status").read_text()
assert os.getuid() == os.getgid() == 10001
assert "CapEff:\\t0000000000000000" in status, status
for place in sys.argv[1:]:
    try:
        pathlib.Path(place, "written").write_text("")
    except OSError:
        continue
    sys.exit(f"{place} can be written to")
pathlib.Path(os.environ["TMPDIR"], "written").write_text("")
"""


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    """The only place that a sealed command can write to; what is there is seen by nobody else."""
    place = tmp_path / "temporary"
    place.mkdir()
    done = subprocess.run(
        [*SEALED, "true"], env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "TMPDIR": str(place)}, check=False
    )
    if shutil.which("unshare") is None or done.returncode != 0:
        pytest.skip("This machine gives no user namespaces: unshare --user --map-root-user --mount fails.")
    return place


def test_a_sealed_command_has_no_rights_and_one_place_to_write_to(sealed: Path, tmp_path: Path) -> None:
    places = ["/", "/tmp", "/var/tmp", "/dev", str(Path.home()), str(tmp_path), str(Path.cwd())]
    environ = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "TMPDIR": str(sealed)}
    done = subprocess.run(
        [*SEALED, sys.executable, "-c", LOOK, *places],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_pod_needs_no_rights_and_no_place_but_its_temporary_directory(
    kafka: KafkaBroker, triton: EmbeddedTriton, sealed: Path, tmp_path: Path
) -> None:
    clip = clips.write(tmp_path / "sound.mp4")
    with FaultyVault() as vault:
        world = World(kafka, triton.grpc_url, vault, tmp_path / "pods")
        world.send(world.store("cam/0.mp4", clip), world.store("cam/1.mp4", clip))
        environ = world.environ | {"TMPDIR": str(sealed), "HOME": "/nonexistent", "POD_NAME": "sealed"}
        with Pod(world.directory, environ, wrapper=SEALED) as pod:
            pod.wait_until_ready()
            world.results(2)
            assert pod.stop() == 0
        assert world.no_letters()
    lines = pod.lines()
    assert not [line for line in lines if line["level"] in {"error", "critical"}]
