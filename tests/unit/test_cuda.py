"""The search for pip-installed CUDA libraries, on made-up wheels: no GPU is needed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

LIBRARY = next(
    Path(line.split()[-1])
    for line in Path("/proc/self/maps").read_text().splitlines()
    if "/libz.so" in line or "/libm.so" in line or "/libm-" in line
)
PROGRAM = """
import json, os, sys
from tfmm._cuda import preload_cuda
loaded = [str(path) for path in preload_cuda(sys.argv[1])]
maps = open("/proc/self/maps").read()
print(json.dumps({
    "loaded": loaded, "mapped": [path for path in loaded if path in maps],
    "path": os.environ["PATH"], "flags": os.environ.get("XLA_FLAGS", ""),
    "tensorflow": "tensorflow" in sys.modules,
}))
"""


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """Folder with `nvidia/`: one library, one that cannot be loaded, and ptxas."""
    good = tmp_path / "nvidia" / "cudart" / "lib" / "libcudart.so.12"
    bad = tmp_path / "nvidia" / "cufft" / "lib" / "libcufft.so.11"
    ptxas = tmp_path / "nvidia" / "cuda_nvcc" / "bin" / "ptxas"
    for path in (good, bad, ptxas):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"no library")
    shutil.copy(LIBRARY, good)
    return tmp_path


def preload(wheels: Path, driver: str, **environment: str) -> dict:
    env = {**os.environ, **environment, "PYTHONPATH": f"{wheels}{os.pathsep}{os.getcwd()}"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, driver],
        env=env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def test_libraries_are_loaded_where_there_is_a_driver(wheels: Path):
    seen = preload(wheels, str(LIBRARY), XLA_FLAGS="--xla_dump_to=x")
    assert seen["loaded"] == [str(wheels / "nvidia/cudart/lib/libcudart.so.12")]
    assert seen["mapped"] == seen["loaded"]
    assert seen["path"].split(os.pathsep)[0] == str(wheels / "nvidia/cuda_nvcc/bin")
    expected = f"--xla_dump_to=x --xla_gpu_cuda_data_dir={wheels / 'nvidia/cuda_nvcc'}"
    assert seen["flags"] == expected
    assert not seen["tensorflow"]


def test_a_chosen_cuda_folder_is_kept(wheels: Path):
    seen = preload(wheels, str(LIBRARY), XLA_FLAGS="--xla_gpu_cuda_data_dir=/mine")
    assert seen["flags"] == "--xla_gpu_cuda_data_dir=/mine"


def test_nothing_happens_without_a_driver(wheels: Path):
    seen = preload(wheels, "libthere-is-none.so.1", XLA_FLAGS="")
    assert seen["loaded"] == []
    assert seen["flags"] == ""


def test_nothing_happens_without_the_wheels(tmp_path: Path):
    assert preload(tmp_path, str(LIBRARY))["loaded"] == []
