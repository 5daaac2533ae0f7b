"""The model half of vault-ml: fetch, export and publish models, and run a Triton that serves them."""

import os

# ONNX Runtime sends telemetry unless this is set before its first import; every import of it is below here.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
