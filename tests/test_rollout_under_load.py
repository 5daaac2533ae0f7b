"""The measure of rollouts: two whole ones under load, programs killed meanwhile, and no recording notices."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import helper, numpy_helper

from consumer.agreement import Agreement, total
from consumer.analysis import Analysis
from consumer.comparison import Comparison
from consumer.errors import VaultMLError
from consumer.look import Look, look_once
from consumer.media import FileMedia
from consumer.report import Stopwatch
from consumer.rollout import Rollout, assign
from consumer.standin_vault import StandinVault
from consumer.topics import Record
from modelops import catalogue, offline
from modelops.drift import Drift
from modelops.embedded import EmbeddedTriton
from modelops.repository import Repository
from tests.brokers.kafka import KafkaBroker
from tests.pods import Pod
from tests.worlds import Load, World, keys

pytestmark = pytest.mark.triton

SHARED = Path(__file__).parents[1].parent / "shared" / "data"
PREDICTIONS, SCORE_THRESHOLD, NMS_IOU = 2, 0.5, 0.45
MOST_UNDER_WAY = 4
SECONDS = 60.0
PUBLISHER = """
import sys
from pathlib import Path
from modelops.export import export
from modelops.request import Request
from modelops.source import Options

source, repository, golden, labels = map(Path, sys.argv[1:])
options = Options(colour="bgr", scale="255", resize="letterbox", labels=labels)
request = Request(size=(256, 416), golden=golden, options=options)
say = lambda line: print(line, file=sys.stderr)
exported = export(source, repository, request=request, force=True, say=say)
print(exported.published.version)
"""
"""Publishes as `vault-ml model export` does, and says each step; one photo is too little for its gate."""


def cut(clip: Path, start_seconds: float, end_seconds: float, target: Path) -> Path:
    """Copy what lies between two times, from the keyframe before it on."""
    with av.open(str(clip)) as source, av.open(str(target), "w") as copy:
        track = source.streams.video[0]
        stream = copy.add_stream_from_template(track)
        assert track.time_base is not None
        source.seek(int(start_seconds / track.time_base), stream=track)
        first = None
        for packet in source.demux(track):
            if packet.dts is None or packet.pts is None or packet.pts * track.time_base >= end_seconds:
                break
            first = packet.dts if first is None else first
            packet.pts, packet.dts = packet.pts - first, packet.dts - first
            packet.stream = stream
            copy.mux(packet)
    return target


def moving(photo: npt.NDArray[np.uint8], target: Path) -> Path:
    """Write a clip of two seconds in which a photo moves slowly to the left."""
    with av.open(str(target), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height = 640, 384
        for number in range(20):
            whole = cv2.resize(photo, (720, 384), interpolation=cv2.INTER_AREA)
            picture = np.ascontiguousarray(whole[:, 4 * number : 4 * number + 640], dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return target


def three_classes(source: Path, target: Path) -> Path:
    """Leave of YOLOX-nano's 80 classes car, bicycle and person, in this order; aside, and less sure."""
    model = onnx.load(source)
    output = model.graph.output[0]
    constants = {
        "kept": np.array([0, 1, 2, 3, 4, 7, 6, 5]),
        "surer": np.array([1, 1, 1, 1, 0.8, 1, 1, 1], np.float32),
        "aside": np.array([0.2, 0, 0, 0, 0, 0, 0, 0], np.float32),
    }
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    for node in model.graph.node:
        node.output[:] = ["of all classes" if name == output.name else name for name in node.output]
    model.graph.node.extend(
        [
            helper.make_node("Gather", ["of all classes", "kept"], ["of three"], axis=2),
            helper.make_node("Mul", ["of three", "surer"], ["less sure"]),
            helper.make_node("Add", ["less sure", "aside"], [output.name]),
        ]
    )
    output.type.tensor_type.shape.dim[2].dim_value = 8
    onnx.save(model, target)
    return target


def recordings(directory: Path) -> dict[str, Path]:
    """Two seconds each: of people, of a table from above, and of a dog, a bicycle and a car."""
    clips = SHARED / "clips"
    made = {
        f"{name}-{start}": cut(
            clips / f"{name}-detection.mp4", start, start + 2, directory / f"{name}-{start}.mp4"
        )
        for name, start in (("car", 6), ("one-by-one-person", 8), ("one-by-one-person", 64))
    }
    read = cv2.imread(str(SHARED / "photos" / "dog.jpg"))
    assert read is not None
    dog = read.astype(np.uint8)
    for name, photo in {"dog": dog, "god": dog[:, ::-1], "two": np.hstack([dog, dog[:, ::-1]])}.items():
        made[name] = moving(photo, directory / f"{name}.mp4")
    return made


@dataclass
class Site:
    """A repository, the Triton that serves it, recordings, and what its operators do."""

    directory: Path
    cuts: Mapping[str, Path]
    repository: Repository
    triton: EmbeddedTriton
    environ: Mapping[str, str] = field(default_factory=dict)
    history: dict[int, Rollout] = field(default_factory=dict)
    """Every state that there was, by generation."""

    def vault_ml(self, *words: str, killed_at: str | None = None, status: int = 0) -> str:
        """Run `vault-ml model ...`; with `killed_at`, kill -9 it at that step and run it again."""
        command = [sys.executable, "-m", "consumer", "model", *words]
        return self._run([*command, "--repository", self.repository.location], killed_at, status)

    def publish(self, source: Path, labels: str, *, killed_at: str | None = None) -> int:
        """Publish a model; with `killed_at`, kill -9 the publisher at that step and run it again."""
        names = self.directory / "labels.txt"
        names.write_text(labels)
        golden = self.directory / "golden"
        return int(
            self._run(
                [
                    sys.executable,
                    "-c",
                    PUBLISHER,
                    str(source),
                    self.repository.location,
                    str(golden),
                    str(names),
                ],
                killed_at,
                0,
            )
        )

    def _run(self, command: list[str], killed_at: str | None, status: int) -> str:
        if killed_at is not None:
            kill_at(command, self.environ, killed_at)
        done = subprocess.run(
            command, env=dict(self.environ), capture_output=True, text=True, check=False, timeout=SECONDS
        )
        assert done.returncode == status, done.stderr + done.stdout
        if "yolo" in self.repository.models():
            rollout = self.repository.companion("yolo").rollout
            assert self.history.setdefault(rollout.generation, rollout) == rollout
        return done.stdout


def kill_at(command: list[str], environ: Mapping[str, str], step: str) -> None:
    """Run a command until it says that it begins a step, then kill it."""
    process = subprocess.Popen(
        command, env=dict(environ), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if line.startswith(step):
            process.kill()
            break
    process.stderr.close()
    assert process.wait(SECONDS) == -9, said


def sending(world: World, pod: Pod, cuts: Mapping[str, Path]) -> Load:
    """Recordings that keep coming, a few of them under way at any time."""
    names = list(cuts)

    def send(number: int) -> bool:
        if number - pod.metric("vault_ml_recordings_total", outcome="done") >= MOST_UNDER_WAY:
            return False
        name = names[number % len(names)]
        world.send(world.store(f"{name}/{number}.mp4", cuts[name]))
        return True

    return Load(send)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One version that is served; nothing else is there yet."""
    directory = tmp_path_factory.mktemp("rollout")
    (directory / "golden").mkdir()
    shutil.copy(SHARED / "photos" / "dog.jpg", directory / "golden")
    cuts = recordings(directory)
    repository = directory / "repository"
    repository.mkdir()
    environ = {
        name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "VAULT_ML_CACHE") if name in os.environ
    }
    with EmbeddedTriton.start(repository, models=[]) as triton:
        environ["TRITON_URL"] = triton.grpc_url
        made = Site(directory, cuts, Repository.open(repository), triton, environ)
        labels = "\n".join(catalogue.CATALOGUE["yolox_nano"].labels)
        assert made.publish(catalogue.fetch("yolox_nano").path, labels) == 1
        made.vault_ml("load", "yolo")
        yield made


def settle(site: Site, pod: Pod, mode: str | None = None) -> None:
    """Wait until recordings have gone through in the newest state, some of them compared."""

    def compared() -> float:
        return pod.metric("vault_ml_comparisons_total", mode=mode) if mode else 0.0

    generation, before = max(site.history), compared()
    pod.wait_for(lambda: pod.metric("vault_ml_rollout_generation") == generation, f"generation {generation}")
    done = pod.metric("vault_ml_recordings_total", outcome="done")
    pod.wait_for(
        lambda: pod.metric("vault_ml_recordings_total", outcome="done") >= done + len(site.cuts), "recordings"
    )
    pod.wait_for(lambda: mode is None or compared() >= before + 2, f"comparisons of a {mode}")


def expected(site: Site) -> tuple[dict[tuple[str, int], Analysis], dict[str, Drift]]:
    """Look at each cut with each version on a Triton of our own: what they see, and how far they agree."""
    look = Look(PREDICTIONS, SCORE_THRESHOLD, NMS_IOU)
    media = {name: FileMedia(path) for name, path in site.cuts.items()}
    with offline.detector_of(site.repository, "yolo", (1, 2), None) as detector:
        seen = {
            (name, version): look_once(each, detector, look, Stopwatch(), version=version).analysis
            for name, each in media.items()
            for version in (1, 2)
        }
        results = [result for _, result in offline.compare(detector, look, (1, 2), media.values())]
    drifts = {}
    for name, result in zip(media, results, strict=True):
        assert not isinstance(result, VaultMLError), result
        drifts[name] = result
    return seen, drifts


def version_of(record: Record) -> int:
    return int(record.headers["vault-ml-model"].removeprefix("yolo/"))


def labels_of(record: Record) -> list[list[str]]:
    value: dict[str, Any] = json.loads(record.value or b"{}")
    return list(value["data"]["labels"])


def counts(agreement: Agreement) -> tuple[object, ...]:
    return (
        agreement.frames,
        agreement.reference_boxes,
        agreement.other_boxes,
        agreement.matched,
        agreement.reference_labels,
        agreement.other_labels,
    )


def assert_agreement(found: Agreement, wanted: Agreement) -> None:
    assert counts(found) == counts(wanted)
    assert found.iou_sum == pytest.approx(wanted.iou_sum, abs=1e-3)
    assert found.score_drift_sum == pytest.approx(wanted.score_drift_sum, abs=1e-3)


def test_two_whole_rollouts_under_load_cost_no_recording_anything(
    site: Site, kafka: KafkaBroker, tmp_path: Path
) -> None:
    with StandinVault() as vault:
        world = World(kafka, site.triton.grpc_url, vault, tmp_path)
        site.environ = {**site.environ, "QUEUE_NAME": world.source, "KAFKA_BROKER": kafka.bootstrap}
        looks = {
            "NUMBER_OF_PREDICTIONS": str(PREDICTIONS),
            "SCORE_THRESHOLD": str(SCORE_THRESHOLD),
            "NMS_IOU": str(NMS_IOU),
        }
        with world.pod(**looks) as pod:
            pod.wait_until_ready()
            with sending(world, pod, site.cuts) as load:
                two_rollouts(site, pod)
                sent = load.stop()
            records = world.results(sent)
            assert pod.stop() == 0
            assert not pod.lines(event="try failed")
            assert not pod.lines(event="canary failed, the live version answers")
        records, comparisons = world.everything(), world.every_comparison()
        assert world.no_letters()
        assert sorted(keys(records)) == sorted({*keys(records)}), "one result for each recording"
        assert len(records) == sent
    seen, drifts = expected(site)
    check_results(records, seen)
    check_assignments(records, comparisons, site.history)
    check_comparisons(comparisons, drifts)
    said = json.loads(site.vault_ml("compare", "yolo", "--versions", "1,2", "--json"))
    everything = total(drifts[comparison.key.partition("/")[0]].agreement for comparison in comparisons)
    assert said["recordings"] == len(comparisons)
    assert said["matched"] == everything.matched
    assert said["agreement"] == pytest.approx(everything.agreement)


def two_rollouts(site: Site, pod: Pod) -> None:
    """Publish, canary, shadow, promote, rollback; and again; programs die at each kind of step."""
    source = three_classes(catalogue.fetch("yolox_nano").path, site.directory / "three.onnx")
    assert site.publish(source, "car\nbicycle\nperson\n", killed_at="Replaying the golden set") == 2

    site.vault_ml("canary", "yolo", "2", "--percent", "20", killed_at="Testing version 2")
    settle(site, pod, "canary")
    site.vault_ml("shadow", "yolo", "2")
    settle(site, pod, "shadow")
    site.vault_ml("promote", "yolo", killed_at="Loading yolo-rollout")
    settle(site, pod)
    site.vault_ml("rollback", "yolo", killed_at="Writing generation")
    settle(site, pod)

    site.vault_ml("canary", "yolo", "2", "--percent", "20")
    settle(site, pod, "canary")
    site.vault_ml("shadow", "yolo", "2", killed_at="Loading yolo on")
    settle(site, pod, "shadow")
    site.vault_ml("promote", "yolo", "--if-agreement", "1", "--min-boxes", "1", status=1)
    site.vault_ml("promote", "yolo", "--if-agreement", "0.5", "--min-boxes", "10", "--within", "1h")
    settle(site, pod)
    site.vault_ml("rollback", "yolo", killed_at="Loading yolo-rollout")
    settle(site, pod)
    assert [
        (rollout.live, rollout.candidate and rollout.candidate.mode) for rollout in site.history.values()
    ] == [(1, None), *[(1, "canary"), (1, "shadow"), (2, None), (1, None)] * 2]


def check_results(records: list[Record], seen: Mapping[tuple[str, int], Analysis]) -> None:
    """Every result is that of its version alone, label for label."""
    for record, key in zip(records, keys(records), strict=True):
        frames = seen[key.partition("/")[0], version_of(record)].frames
        wanted = [[found.label for found in frame.detections] for frame in frames if frame.detections]
        assert labels_of(record) == wanted, key
    labels = {
        version: {
            label
            for record in records
            if version_of(record) == version
            for frame in labels_of(record)
            for label in frame
        }
        for version in (1, 2)
    }
    assert labels[2] == {"car", "bicycle", "person"}
    assert labels[1] > labels[2], "or the labels above would prove nothing"


def check_assignments(
    records: list[Record], comparisons: list[Comparison], history: Mapping[int, Rollout]
) -> None:
    """Each recording was answered and compared by the versions that some state of the rollout has for it."""
    compared = {comparison.key: comparison for comparison in comparisons}
    source = comparisons[0].source
    answered = dict(zip(keys(records), map(version_of, records), strict=True))
    for key, version in answered.items():
        comparison = compared.get(key)
        states = history.values() if comparison is None else [history[comparison.generation]]
        assigned = [assign(state, source, key) for state in states]
        pair = None if comparison is None else {comparison.live.version, comparison.candidate.version}
        assert any(
            each.version == version and (pair is None) == (each.compared is None)
            and (pair is None or pair == {each.version, each.compared})
            for each in assigned
        ), key  # fmt: skip
    assert {comparison.mode for comparison in comparisons} == {"canary", "shadow"}
    assert set(answered.values()) == {1, 2}


def check_comparisons(comparisons: list[Comparison], drifts: Mapping[str, Drift]) -> None:
    """The numbers on the diff topic are those of an offline comparison of the same recordings."""
    for comparison in comparisons:
        assert comparison.failed is None, comparison
        assert_agreement(comparison.agreement, drifts[comparison.key.partition("/")[0]].agreement)
    agreement = total(drift.agreement for drift in drifts.values())
    assert agreement.agreement is not None and 0 < agreement.agreement < 1, "or it would prove nothing"
    assert agreement.mean_iou is not None and agreement.mean_iou < 0.99
