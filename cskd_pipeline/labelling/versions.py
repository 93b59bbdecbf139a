"""The libraries and the device that made pixels and logits, as each commit records them."""

from __future__ import annotations

import importlib.metadata
import platform

import torch
from PIL import features

import cskd_pipeline

_LIBRARIES = ("torch", "torchvision", "timm", "numpy", "pillow", "zarr", "numcodecs", "numba", "simplejpeg")


def versions(device: torch.device) -> dict[str, str]:
    """Name -> version, with codec, processor, threads and device."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "cskd_pipeline": cskd_pipeline.__version__,
        **{library: importlib.metadata.version(library) for library in _LIBRARIES},
        "python": platform.python_version(),
        "jpeg": f"libjpeg-turbo {features.version_feature('libjpeg_turbo') or 'absent'}",
        "device": f"{device.type}: {name}",
        "cpu_threads": str(torch.get_num_threads()),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
