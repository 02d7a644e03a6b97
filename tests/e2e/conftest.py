"""The tiny shop, prepared once for the tests that train on it."""

from pathlib import Path

import pytest
import tiny_shop


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tfmm.config import load_config
    from tfmm.workflows.prepare import prepare

    folder = tmp_path_factory.mktemp("tiny")
    config = load_config(None, tiny_shop.SETTINGS)
    prepare(tiny_shop.write(folder / "shop"), folder / "data", config=config, progress=False)
    return folder / "data"
