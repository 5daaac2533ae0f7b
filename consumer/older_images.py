"""Older images: variables of kerberos/vault-ml, hub-ml and the hub-pipeline-classifier that do nothing here.

The names are those of the READMEs and manifests of kerberos-io/nvidia-gpu-kubernetes,
kerberos-io/hub-objecttracker, uug-ai/hub-pipeline-classifier and uug-ai/triton.
"""

from collections.abc import Mapping
from pathlib import Path

_FALSE = frozenset({"", "0", "0.0", "false", "no", "off", "none", "null"})

_KAFKA_ONLY = (
    "this image reads Kafka only; set KAFKA_BROKER, KAFKA_USERNAME and KAFKA_PASSWORD, and remove it."
)
_ANNOTATE = "`vault-ml detect --annotate DIR` draws boxes; remove it."
_NO_FILES = "results always go to QUEUE_TARGET and never into a file; remove it."
_NO_COLOURS = "colours are not looked for; remove it."
_NO_TRACKS = "objects are not followed from frame to frame, so no distance is known; remove it."
_FRAMES = "set NUMBER_OF_PREDICTIONS, the number of frames spread over the whole recording, and remove it."
_MODEL_SAYS = "the model that Triton serves says so itself; remove it."

ADVICE: Mapping[str, str] = {
    "FORWARDING_MEDIA": "recordings are not forwarded; let Vault forward them, and remove it.",
    "FORWARDING_METADATA": "results go to QUEUE_TARGET only; let Hub read that topic, and remove it.",
    "FORWARDING_OBJECT_THRESHOLD": "nothing is forwarded; count the boxes of a result, and remove it.",
    "REMOVE_AFTER_PROCESSED": "recordings are never deleted; set a retention in Vault, and remove it.",
    "MOVE_DISTANCE": _NO_TRACKS,
    "RABBITMQ_HOST": _KAFKA_ONLY,
    "RABBITMQ_EXCHANGE": _KAFKA_ONLY,
    "RABBITMQ_USERNAME": _KAFKA_ONLY,
    "RABBITMQ_PASSWORD": _KAFKA_ONLY,
    "QUEUE_HOST": _KAFKA_ONLY,
    "QUEUE_EXCHANGE": _KAFKA_ONLY,
    "QUEUE_USERNAME": _KAFKA_ONLY,
    "QUEUE_PASSWORD": _KAFKA_ONLY,
    "MODEL_NAME": "Triton serves the model; export it with `vault-ml model export`, name it in TRITON_MODEL, "
    "and remove it.",
    "MEDIA_SAVEPATH": "each recording has a private temporary file; set TMPDIR to move those, and remove it.",
    "PLOT": _ANNOTATE,
    "SAVE_VIDEO": _ANNOTATE,
    "OUTPUT_MEDIA_SAVEPATH": _ANNOTATE,
    "CREATE_BBOX_FRAME": _ANNOTATE,
    "SAVE_BBOX_FRAME": _ANNOTATE,
    "BBOX_FRAME_SAVEPATH": _ANNOTATE,
    "CREATE_RETURN_JSON": _NO_FILES,
    "SAVE_RETURN_JSON": _NO_FILES,
    "RETURN_JSON_SAVEPATH": _NO_FILES,
    "TIME_VERBOSE": "each recording's log line and /metrics hold its times; remove it.",
    "LOGGING": "set LOG_LEVEL, and remove it.",
    "FIND_DOMINANT_COLORS": _NO_COLOURS,
    "COLOR_PREDICTION_INTERVAL": _NO_COLOURS,
    "MIN_CLUSTERS": _NO_COLOURS,
    "MAX_CLUSTERS": _NO_COLOURS,
    "CLASSIFICATION_FPS": _FRAMES,
    "MAX_NUMBER_OF_PREDICTIONS": _FRAMES,
    "MIN_DISTANCE": _NO_TRACKS,
    "MIN_STATIC_DISTANCE": _NO_TRACKS,
    "MIN_DETECTIONS": _NO_TRACKS,
    "ALLOWED_CLASSIFICATIONS": "every label of the model comes out; choose where you read the results, "
    "and remove it.",
    "KERBEROS_STORAGE_PROVIDER": "each event names its provider (`source`); remove it.",
    "CONDITION": "recordings are not filtered; choose by label where you read the results, and remove it.",
    "FRAMES_SKIP_AFTER_DETECT": _FRAMES,
    "IOU": "set NMS_IOU, and remove it.",
    "TRITON_MODEL_HEAD": _MODEL_SAYS,
    "TRITON_INPUT_NAME": _MODEL_SAYS,
    "TRITON_OUTPUT_NAME": _MODEL_SAYS,
    "TRITON_INPUT_SIZE": _MODEL_SAYS,
    "TRITON_NUM_CLASSES": _MODEL_SAYS,
}
"""What to do instead, by name: the clause after "NAME is set but does nothing here:"."""


def warnings(environ: Mapping[str, str]) -> list[str]:
    """Return a sentence for each variable of an older image that is set to something active."""
    return [
        f"{name} is set but does nothing here: {advice}"
        for name, advice in ADVICE.items()
        if environ.get(name, "").strip().lower() not in _FALSE
    ]


def gpu_warnings(environ: Mapping[str, str], dev: Path) -> list[str]:
    """Return a sentence when this pod holds a GPU: the GPUs are Triton's, and here one would lie idle.

    A pod with nvidia.com/gpu in its limits is given NVIDIA_VISIBLE_DEVICES and /dev/nvidia<n>.
    """
    asked = environ.get("NVIDIA_VISIBLE_DEVICES", "").strip().lower() not in {"", "none", "void"}
    in_pod = "KUBERNETES_SERVICE_HOST" in environ  # a developer's own machine may well have a GPU
    if not asked and not (in_pod and any(dev.glob("nvidia[0-9]*"))):
        return []
    sign = "NVIDIA_VISIBLE_DEVICES is set" if asked else f"{dev}/nvidia0 is here"
    return [
        f"{sign}, but the GPUs are Triton's: remove nvidia.com/gpu from this Deployment, else it lies idle."
    ]
