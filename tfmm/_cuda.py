"""Makes TensorFlow find the CUDA libraries that `pip install tensorflow[and-cuda]` brings.

TensorFlow 2.16 looks for them by paths relative to its own folder, and cuDNN 8.9 looks for NVRTC
in a folder that the NVRTC wheel does not have. So both miss libraries as soon as the wheels lie
elsewhere. A library that is already in the process is found by its name, wherever it came from:
hence each is loaded here, by its full path, before TensorFlow asks. The folders of XLA's compiler
`ptxas` and of its `libdevice` are named in the environment.

Reports: https://github.com/tensorflow/tensorflow/issues/63362 and 65842.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
from collections.abc import Iterable
from pathlib import Path

DRIVER = "libcuda.so.1"


def preload_cuda(driver: str = DRIVER) -> list[Path]:
    """Loads the CUDA libraries of the nvidia-* wheels, where there are any and a GPU driver.

    Args:
      driver: Shared library whose presence says that this machine has a GPU.

    Returns:
      The libraries that were loaded.
    """
    spec = importlib.util.find_spec("nvidia")
    if spec is None or not spec.submodule_search_locations or not _loads(driver):
        return []
    roots = [Path(location) for location in spec.submodule_search_locations]
    for root in roots:
        _announce_compiler(root / "cuda_nvcc")
    return _load_all(path for root in roots for path in sorted(root.glob("*/lib/lib*.so*")))


def _load_all(libraries: Iterable[Path]) -> list[Path]:
    """Loads libraries that may need one another: again and again, as long as it helps."""
    waiting, loaded = list(libraries), []
    while waiting:
        done = [path for path in waiting if _loads(str(path))]
        if not done:
            break
        loaded += done
        waiting = [path for path in waiting if path not in done]
    return loaded


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _announce_compiler(folder: Path) -> None:
    if not (folder / "bin" / "ptxas").is_file():
        return
    os.environ["PATH"] = f"{folder / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
    flags = os.environ.get("XLA_FLAGS", "")
    if "--xla_gpu_cuda_data_dir" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_cuda_data_dir={folder}".strip()
