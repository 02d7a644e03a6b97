"""What several tests here ask for: the tiny shop, prepared once, and clusters of this machine."""

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


@pytest.fixture
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spark listens on the address of the machine's name otherwise."""
    monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
