"""The files of the embedded Triton: fetched once into the cache, assembled, checked before every start.

NVIDIA publishes the real `tritonserver` binary (2.51) and its Python backend in the wheel `nvidia-pytriton`
on PyPI. The wheel is installed without its 48 dependencies into a directory of its own, and its Python API
is not used. docs/adr/0004-embedded-triton.md says why.
"""

import hashlib
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from consumer.cache import cache_directory, make_in_cache
from consumer.errors import SetupError

_log = logging.getLogger(__name__)

PYTRITON = "nvidia-pytriton==0.7.0"
PYTRITON_SHA256 = "21f063ff93bb426d0c06b7a55e7eb9efcfe62c0dddd9a908e9877e18710128df"

_SERVER = Path("pytriton/tritonserver")
_PYTHON_BACKEND_FILES = ("libtriton_python.so", "triton_python_backend_utils.py")
_STUB = "triton_python_backend_stub"


@dataclass(frozen=True)
class TritonRuntime:
    """Where the embedded Triton lies, ready to be started."""

    server: Path
    backends: Path
    environment: dict[str, str]
    """The whole environment of the server: nothing of the caller's goes in."""


def prepare() -> TritonRuntime:
    """Fetch (once) and assemble the embedded Triton, and check that its Python stub can start.

    Raises:
        SetupError: the wheel cannot be fetched, this machine is not Linux x86-64, onnxruntime is not
            installed, or libpython is missing and cannot be fetched.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        raise SetupError(
            "The embedded Triton needs ONNX Runtime: install the extra, `pip install '.[models]'`."
        )
    directory = cache_directory() / f"triton-{PYTRITON.partition('==')[2]}-{PYTRITON_SHA256[:12]}"
    wheel = directory / "wheel"
    if not wheel.is_dir():
        build_atomically(wheel, _install_wheel)
    backends = directory / f"backends-{_backends_digest()}"
    if not backends.is_dir():
        build_atomically(backends, lambda target: _assemble_backends(wheel, target))
    stub = backends / "python" / _STUB
    return TritonRuntime(
        server=wheel / _SERVER / "bin" / "tritonserver",
        backends=backends,
        environment=_environment(wheel, _libpython_directories(stub, wheel, directory)),
    )


def installed() -> TritonRuntime | None:
    """Return the Triton that is installed here, as in NVIDIA's container; None where there is none."""
    server = shutil.which("tritonserver")
    if server is None:
        return None
    # <root>/bin/tritonserver and <root>/backends, as in NVIDIA's container (/opt/tritonserver).
    return TritonRuntime(Path(server), Path(server).parents[1] / "backends", dict(os.environ))


def build_atomically(target: Path, build: Callable[[Path], None]) -> None:
    """Build in a temporary directory beside the target and rename; a second process may win the race."""
    make_in_cache(target.parent)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        build(temporary)
        temporary.chmod(0o755)
        try:
            temporary.rename(target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _install_wheel(target: Path) -> None:
    _log.info("Fetching the Triton server (%s, 55 MB, once)", PYTRITON)
    requirements = target.with_name(target.name + ".txt")
    requirements.write_text(f"{PYTRITON} --hash=sha256:{PYTRITON_SHA256}\n")
    try:
        finished = subprocess.run(  # noqa: S603 - our own pip, a pinned requirement
            [
                sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
                "--no-compile", "--only-binary", ":all:", "--require-hashes", "--target", str(target),
                "--requirement", str(requirements),
            ],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    finally:
        requirements.unlink()
    if finished.returncode != 0:
        reason = (finished.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise SetupError(
            f"The Triton server {PYTRITON} could not be installed (it needs Linux x86-64, glibc 2.35 or "
            f"newer and a package index; or point --triton at a running server): {reason}"
        )


def backend_sources() -> Path:
    """Where our backends in Python lie: beside this package in a checkout, inside it when installed."""
    beside = Path(__file__).parent.parent / "backends"
    return beside if beside.is_dir() else Path(__file__).parent / "backends"


def _backends_digest() -> str:
    digest = hashlib.sha256(f"{sys.version_info.major}.{sys.version_info.minor}".encode())
    for source in sorted(backend_sources().rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:12]


def _assemble_backends(wheel: Path, target: Path) -> None:
    """Copy the Python backend, this interpreter's stub, and our backends; Triton refuses links here."""
    server = wheel / _SERVER
    python_version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = server / "python_backend_stubs" / python_version / _STUB
    if not stub.is_file():
        known = ", ".join(sorted(path.name for path in (server / "python_backend_stubs").iterdir()))
        raise SetupError(f"The embedded Triton has no stub for Python {python_version}; use one of {known}.")
    python_backend = target / "python"
    python_backend.mkdir()
    for name in _PYTHON_BACKEND_FILES:
        shutil.copy2(server / "backends" / "python" / name, python_backend)
    shutil.copy2(stub, python_backend)
    (python_backend / _STUB).chmod(0o755)
    sources = backend_sources()
    for model in sorted(sources.glob("*/model.py")):
        backend = target / model.parent.name
        backend.mkdir()
        shutil.copy2(model, backend)
        shutil.copy2(sources / "stand_in.py", backend)


def _environment(wheel: Path, libpython_directories: list[Path]) -> dict[str, str]:
    libraries = [wheel / "nvidia_pytriton.libs", *libpython_directories]
    return {
        # The stub takes the first python3 on PATH: ours, so that it imports our numpy and onnxruntime.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin"]),
        "LD_LIBRARY_PATH": os.pathsep.join(str(path) for path in libraries),
        "HOME": str(Path.home()),
        "LC_ALL": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONNOUSERSITE": "1",
        "ORT_DISABLE_TELEMETRY": "1",
    }


def _libpython_directories(stub: Path, wheel: Path, directory: Path) -> list[Path]:
    """Find libpython for the stub: without it the server would hang for ever while loading a model."""
    own = [Path(str(sysconfig.get_config_var("LIBDIR"))), Path(sys.base_prefix) / "lib"]
    name = f"libpython{sys.version_info.major}.{sys.version_info.minor}"
    candidates = [path for path in own if any(path.glob(f"{name}.so*"))]
    missing = missing_libraries(stub, _environment(wheel, candidates))
    if missing:
        fetched = directory / name
        if not fetched.is_dir():
            build_atomically(fetched, lambda target: fetch_debian_package(name, target))
        candidates.append(next(fetched.rglob(f"{name}.so.1.0")).parent)
        missing = missing_libraries(stub, _environment(wheel, candidates))
    if missing:
        raise SetupError(_libpython_sentence(name, f"it misses {', '.join(missing)}"))
    return candidates


def missing_libraries(program: Path, environment: dict[str, str]) -> list[str]:
    """Name the shared libraries that the dynamic linker does not find for a program, by `ldd`."""
    listing = subprocess.run(  # noqa: S603 - a program out of our own cache
        ["/usr/bin/ldd", str(program)], env=environment, capture_output=True, text=True, check=False
    )
    return [line.split("=>")[0].strip() for line in listing.stdout.splitlines() if "not found" in line]


def fetch_debian_package(package: str, target: Path) -> None:
    """Download a Debian package and unpack it into `target`; needs no root."""
    for command in (["apt-get", "download", package], ["sh", "-c", "dpkg -x ./*.deb ."]):
        program = shutil.which(command[0])
        if program is None:
            raise SetupError(_libpython_sentence(package, f"{command[0]} is not there to fetch it"))
        finished = subprocess.run(  # noqa: S603 - fixed commands, the package's name is ours
            [program, *command[1:]], cwd=target, capture_output=True, text=True, check=False
        )
        if finished.returncode != 0:
            reason = (finished.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise SetupError(_libpython_sentence(package, reason))


def _libpython_sentence(package: str, reason: str) -> str:
    return (
        f"Triton's Python stub cannot start without {package}.so.1.0 ({reason}): "
        f"run `sudo apt-get install {package}` and try again."
    )
