"""Setting fields of what looks at recordings: the model, the frames, the workers."""

from typing import Annotated

from pydantic import Field

from consumer import setting_types
from consumer.cpus import usable_cpus
from consumer.triton_fields import TritonAccessSettings
from consumer.variables import Variable

SCORE_THRESHOLD = Variable(
    "Detections with a lower score are left out; `vault-ml detect` has 0.25.",
    "a number from 0 to 1",
    aliases=("CLASSIFICATION_THRESHOLD", "TRITON_CONF"),
)


class DetectSettings(TritonAccessSettings):
    """What `vault-ml detect` needs: no Kafka, no Vault. Built by load_detect()."""

    number_of_predictions: Annotated[
        int,
        Field(ge=1, le=1000),
        Variable(
            "How many frames of a recording are looked at, spread evenly over the whole clip.",
            "a whole number from 1 to 1000",
            unit="frames",
        ),
    ] = 5
    triton_url: Annotated[
        setting_types.TritonUrl,
        Variable(
            "Triton's gRPC address: host:port, dns:///host:port (spreads over a headless Service's pods), "
            "ipv4:address:port or unix:/path.",
            "host:port of Triton's gRPC",
        ),
    ] = "dns:///triton:8001"
    triton_model: Annotated[
        str, Field(min_length=1), Variable("The model that Triton is asked for.", "a model's name")
    ] = "yolo"
    triton_timeout: Annotated[
        setting_types.Seconds,
        Variable(
            "How long one request to Triton may take.", "seconds, more than 0, such as 30", unit="seconds"
        ),
    ] = 30.0
    triton_in_flight: Annotated[
        int,
        Field(ge=1, le=64),
        Variable(
            "Requests that one worker may have under way while it decodes the next frames.",
            "a whole number from 1 to 64",
            unit="requests",
        ),
    ] = 2
    score_threshold: Annotated[setting_types.Fraction, SCORE_THRESHOLD] = 0.25
    nms_iou: Annotated[
        setting_types.Fraction,
        Variable(
            "A box that overlaps a better one of its class by more than this is taken for the same object.",
            "a number from 0 to 1",
            aliases=("TRITON_IOU",),
        ),
    ] = 0.45
    workers: Annotated[
        int,
        Field(ge=1, le=1024),
        Variable(
            "Worker processes; each takes one recording at a time.",
            "a whole number from 1 to 1024",
            unit="processes",
            default_words="the CPUs that the pod may use",
        ),
    ] = Field(default_factory=usable_cpus)
    worker_memory: Annotated[
        setting_types.Bytes,
        Field(ge=256 * 1024**2),
        Variable(
            "How much memory a worker may take; one that takes more is replaced. 4K needs up to 450 MiB.",
            "bytes, at least 256MiB, such as 1073741824 or 1GiB",
            unit="bytes",
        ),
    ] = 1024**3
    recording_time_limit: Annotated[
        setting_types.Seconds,
        Variable(
            "How long one attempt at a recording may take; a worker that is busy 30 s beyond it is replaced.",
            "seconds, more than 0, such as 120",
            unit="seconds",
        ),
    ] = 120.0
    recording_encryption_key: Annotated[
        setting_types.Passphrase | None,
        Variable(
            "The symmetric key that the agents encrypt recordings with; without it they become dead letters.",
            "the symmetric key of the agents",
            secret=True,
        ),
    ] = None
    log_level: Annotated[
        setting_types.LogLevel,
        Variable(
            "The least important lines that are logged (`run` info, `detect` warning by default).",
            "debug, info, warning or error",
        ),
    ] = "warning"
    log_format: Annotated[
        setting_types.LogFormat,
        Variable(
            "`json` writes one object per line, `console` is for people, `auto` is `console` on a terminal.",
            "auto, json or console",
        ),
    ] = "auto"
