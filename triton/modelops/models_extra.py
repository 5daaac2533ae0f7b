"""The extra `models`: the packages of the model's side, which the consumer goes without."""

import importlib.util

from consumer.errors import SetupError


def require_models_extra() -> None:
    """Say in one sentence what to install, where the model side's packages are missing.

    Raises:
        SetupError: onnx, onnxruntime or onnxslim is not there.
    """
    lacking = [name for name in ("onnx", "onnxruntime", "onnxslim") if importlib.util.find_spec(name) is None]
    if lacking:
        raise SetupError(
            f"This needs {', '.join(lacking)}: install vault-ml with its extra, `pip install '.[models]'`."
        )
