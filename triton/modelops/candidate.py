"""A candidate: a model with all that is known about it, ready to become a version."""

from dataclasses import dataclass

from onnx import ModelProto

from consumer.contract import ModelVersion
from consumer.errors import SetupError
from modelops.config_pbtxt import Served

MODEL_FILE = "model.onnx"
GOLDEN_FILE = "golden.npz"
PROVENANCE_FILE = "provenance.json"


@dataclass(frozen=True)
class Candidate:
    """A model that is ready to be published."""

    served: Served
    model: ModelProto
    labels: tuple[str, ...]
    digest: str
    """Of the source model: `sha256:<hex>`."""
    provenance: bytes = b"{}"
    golden: bytes = b""

    def files(self) -> dict[str, bytes]:
        """Files of the version; the provenance comes last and makes it whole where there is no rename."""
        return {
            MODEL_FILE: self.model.SerializeToString(),
            GOLDEN_FILE: self.golden,
            PROVENANCE_FILE: self.provenance,
        }

    def as_version(self, number: int) -> ModelVersion:
        """Return what the companion says about it."""
        return ModelVersion(str(number), self.labels, self.digest)

    def check_keeps(self, there: Served) -> None:
        """Check that consumers who know the older versions need not care.

        Raises:
            SetupError: it promises something else than they do; says what.
        """
        fields = ("height", "width", "max_detections", "resize", "nms_in_graph")
        differences = [
            f"{field} {getattr(there, field)} there, {getattr(self.served, field)} here"
            for field in fields
            if getattr(there, field) != getattr(self.served, field)
        ]
        if differences:
            raise SetupError(
                f"A new version of {self.served.name!r} must keep what the older ones promise "
                f"({'; '.join(differences)}): export it alike, or under another --name."
            )


@dataclass(frozen=True)
class Published:
    """A version in the repository.

    directory: its path or URL. served: whether Triton sees it, or it waits on the shelf.
    """

    name: str
    version: int
    directory: str
    served: bool
