"""Checkpoints of Ultralytics (`.pt`) to ONNX, by Ultralytics' own exporter, where the user has installed it.

Ultralytics is under AGPL-3.0: vault-ml neither ships it nor depends on it, and no module here imports it. A
child process runs its public API (https://docs.ultralytics.com/modes/export/) on a copy in the cache, because
it writes beside the file that it reads.
"""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from consumer.cache import cache_directory, make_in_cache
from consumer.errors import SetupError
from modelops.download import digest_of

_PACKAGE = "ultralytics"
_OPSET = 17
_TIMEOUT_SECONDS = 1800
_EXPORT = f"""
import sys
from ultralytics import YOLO
print(YOLO(sys.argv[1]).export(format="onnx", dynamic=True, simplify=False, opset={_OPSET}, device="cpu"))
"""
_ENVIRONMENT = {"YOLO_AUTOINSTALL": "false", "YOLO_OFFLINE": "true"}
"""It shall install nothing into the user's environment, and report nothing to anybody."""


def convert(path: Path) -> Path:
    """Export a checkpoint with free sizes and batch, once for each content and exporter, and return the ONNX.

    A checkpoint is a pickle: reading it runs what is in it. That is Ultralytics' doing, in the child process.

    Raises:
        SetupError: it is not there, Ultralytics is not installed, or its export fails.
    """
    if not path.is_file():
        raise SetupError(f"{path} is not there.")
    try:
        version = importlib.metadata.version(_PACKAGE)
    except importlib.metadata.PackageNotFoundError as error:
        raise SetupError(
            f"{path.name} is a checkpoint that only Ultralytics can export: install it with `pip install "
            "ultralytics` (its licence is AGPL-3.0, so vault-ml does not bring it), or export it to ONNX "
            "elsewhere and give that file."
        ) from error
    target = cache_directory() / "models" / _PACKAGE / f"{digest_of(path)}-{version}" / f"{path.stem}.onnx"
    if target.is_file():
        return target
    make_in_cache(target.parent)
    with tempfile.TemporaryDirectory(prefix=".", dir=target.parent) as directory:
        copy = Path(shutil.copyfile(path, Path(directory) / path.name))
        problem = _run(copy)
        exported = copy.with_suffix(".onnx")
        if problem is not None or not exported.is_file():
            raise SetupError(
                f"Ultralytics {version} does not export {path.name}: {problem or 'no file came out'}."
            )
        return exported.rename(target)


def _run(copy: Path) -> str | None:
    """Export in a child process; return what went wrong."""
    try:
        child = subprocess.run(  # noqa: S603 - our own interpreter and our own script
            [sys.executable, "-c", _EXPORT, str(copy)],
            cwd=copy.parent,
            env={**os.environ, **_ENVIRONMENT},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"it took longer than {_TIMEOUT_SECONDS} s"
    if child.returncode == 0:
        return None
    said = [line.strip() for line in (child.stderr or child.stdout).splitlines() if line.strip()]
    return said[-1].rstrip(".") if said else f"its process ended with {child.returncode}"
