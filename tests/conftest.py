"""What every test needs before TensorFlow loads: legacy Keras, the CPU alone, quiet, seeded."""

import gc
import os
import random
import sys
from pathlib import Path
from typing import Any

os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "2")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "2")

import hypothesis
import numpy as np
import pytest

import tfmm  # noqa: F401 - chooses legacy Keras before a test file imports TensorFlow

# TensorFlow traces on first use, so that a deadline a call says nothing; the same examples every
# time, so that a red test stays red. `--hypothesis-profile=search` looks for new ones.
hypothesis.settings.register_profile("same", deadline=None, derandomize=True)
hypothesis.settings.register_profile("search", deadline=None, max_examples=1000)
hypothesis.settings.load_profile("same")


# Tracing makes objects by the million and next to no garbage.
gc.set_threshold(100_000, 50, 50)

# Two processes share the files out in this order: a long one that comes last would leave one idle.
LONGEST_FIRST = ("e2e", "conformance", "property")
# Files that ask for what takes longest to make, the served shop, run in one process, which makes it
# once.
SERVED = (
    "client", "deployment", "score_verify", "serving_clients", "serving_fuzz", "serving_fuzz_rest",
    "serving_grpc", "serving_rest", "stock_ops",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        kind = item.path.parent.name
        return LONGEST_FIRST.index(kind) if kind in LONGEST_FIRST else len(LONGEST_FIRST)

    items.sort(key=place)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Whole files to each process, as `--dist loadfile` does; those in SERVED as if one."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            folder, _, name = file.rpartition("/test_")
            is_served = folder.endswith("conformance") and name.removesuffix(".py") in SERVED
            return "served" if is_served else file

    return Scheduling(config, log)


@pytest.fixture(autouse=True)
def seeds() -> None:
    """The same random numbers for each test, whichever ran before."""
    random.seed(0)
    np.random.seed(0)
    tensorflow = sys.modules.get("tensorflow")
    # A test that is collected alone may load TensorFlow itself, while it is half loaded.
    if tensorflow is not None and hasattr(tensorflow, "random"):
        tensorflow.random.set_seed(0)


@pytest.fixture(scope="session")
def words_shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, Path]:
    """Towers of words, and the first version of their model, which takes a while to export."""
    import refreshable

    folder = tmp_path_factory.mktemp("words-shop")
    run = refreshable.trained(refreshable.recipe(folder, 'index.kind="exact"'))
    return run, refreshable.publish(run, folder / "first", refreshable.ROWS)
