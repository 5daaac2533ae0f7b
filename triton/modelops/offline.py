"""Offline comparison: two versions look at the same frames of recordings at hand, one after the other."""

import contextlib
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from consumer.agreement import compare_frame, total
from consumer.detector import TritonDetector, TritonEndpoint
from consumer.errors import SetupError, VaultMLError
from consumer.look import Look, look_once
from consumer.media import FileMedia, Media
from consumer.report import Stopwatch
from consumer.rollout import Rollout, companion_name
from consumer.triton_access import TritonAccess
from modelops import companion as companions
from modelops import config_pbtxt
from modelops.candidate import MODEL_FILE
from modelops.companion import Companion
from modelops.drift import Drift
from modelops.embedded import EmbeddedTriton
from modelops.repository import Repository


def compare(
    detector: TritonDetector, look: Look, versions: tuple[int, int], media: Iterable[Media]
) -> Iterator[tuple[Media, Drift | VaultMLError]]:
    """Yield what two versions make of each recording, or why one of them could make nothing of it.

    Args:
        detector: of a Triton that serves both.
        look: how each recording is looked at.
        versions: the one that counts as live, and the candidate.
        media: the recordings.

    Raises:
        ContractError, TritonAway: the versions cannot be asked at all.
    """
    live, candidate = versions
    known = [set(detector.version(str(version)).labels) for version in versions]
    shared = known[0] & known[1]
    for each in media:
        try:
            first, second = (
                look_once(each, detector, look, Stopwatch(), version=version) for version in (live, candidate)
            )
        except VaultMLError as error:
            yield each, error
            continue
        frames = zip(first.analysis.frames, second.analysis.frames, strict=True)
        agreement = total(
            compare_frame(ours.detections, theirs.detections, shared) for ours, theirs in frames
        )
        yield each, Drift(1, Counter(), agreement, first.seconds, second.seconds)


@contextlib.contextmanager
def detector_of(
    repository: Repository,
    model: str,
    versions: tuple[int, int],
    triton_url: str | None,
    access: TritonAccess | None = None,
) -> Iterator[TritonDetector]:
    """Give a detector that both versions answer: that of a running Triton, or of one started for it.

    Versions on the shelf can be compared too by the Triton of our own: it gets a copy of both. `access` is
    for one that was named.

    Raises:
        SetupError: a version is not there, or not served by the Triton that was named.
    """
    with contextlib.ExitStack() as stack:
        if triton_url is None:
            access = None
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vault-ml-compare-")))
            _copy(repository, model, versions, directory)
            triton_url = stack.enter_context(EmbeddedTriton.start(directory)).grpc_url
        yield stack.enter_context(
            TritonDetector(TritonEndpoint(triton_url, model, access=access or TritonAccess()))
        )


def local(paths: Iterable[Path]) -> list[FileMedia]:
    """Return recordings on this machine.

    Raises:
        SetupError: one of them is no file.
    """
    paths = list(paths)
    for path in paths:
        if not path.is_file():
            raise SetupError(f"{path} is no file: name recordings on this machine.")
    return [FileMedia(path) for path in paths]


def _copy(repository: Repository, model: str, versions: tuple[int, int], directory: Path) -> None:
    known = repository.companion(model).versions
    texts = config_pbtxt.config_files(repository.config(model))
    files = {f"{model}/{path}": text.encode() for path, text in texts.items()}
    for version in versions:
        files[f"{model}/{version}/{MODEL_FILE}"] = repository.read(model, version, MODEL_FILE)
    companion = Companion(
        Rollout(generation=1, live=versions[0]), {number: known[number] for number in versions}
    )
    files[f"{companion_name(model)}/config.pbtxt"] = companions.render(model, companion).encode()
    files[f"{companion_name(model)}/1/{MODEL_FILE}"] = companions.model_bytes()
    for path, content in files.items():
        file = directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
