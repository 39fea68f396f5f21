"""The machine that a run is made on: what env.json holds, and how much memory was used."""

import os
import platform
import sys

import numpy
import torch


def environment() -> dict:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "system": platform.system(),
        "machine": platform.machine(),
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def peak_memory_mb() -> float | None:
    """The most memory that this process has held; None where the system does not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    units = 1024 * 1024 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / units
