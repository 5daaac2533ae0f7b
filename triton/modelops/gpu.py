"""The GPU that TensorRT builds for, asked of NVIDIA's driver itself: nothing need be installed for it.

The names and numbers are those of the CUDA driver API (cuda.h) and of NVML (nvml.h).
"""

import contextlib
import ctypes
from dataclasses import dataclass

_MAJOR, _MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR."""


@dataclass(frozen=True)
class Gpu:
    """A GPU and its driver; compute capability like "8.9"."""

    name: str
    compute_capability: str
    driver: str


def first_gpu() -> Gpu | None:
    """Return the first GPU that CUDA sees, the one that TensorRT takes; None where there is none."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, name, value = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_int()
    # CUDA_VISIBLE_DEVICES is honoured here, and not by nvidia-smi.
    if cuda.cuInit(0) or cuda.cuDeviceGet(ctypes.byref(device), 0):
        return None
    if cuda.cuDeviceGetName(name, len(name), device):
        return None
    numbers = []
    for attribute in (_MAJOR, _MINOR):
        if cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device):
            return None
        numbers.append(str(value.value))
    return Gpu(name.value.decode(errors="replace"), ".".join(numbers), _driver_version())


def _driver_version() -> str:
    """Like "580.95.05"; empty where NVML is not there."""
    with contextlib.suppress(OSError):
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
        version = ctypes.create_string_buffer(96)
        if nvml.nvmlInit_v2() == 0:
            known = nvml.nvmlSystemGetDriverVersion(version, len(version)) == 0
            nvml.nvmlShutdown()
            return version.value.decode(errors="replace") if known else ""
    return ""
