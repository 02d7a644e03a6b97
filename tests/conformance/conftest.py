"""One model server for the tests that only ask: started once, as a user starts it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

CONFIG = """
model_config_list {{
  config {{
    name: "half" base_path: "{root}/half" model_platform: "tensorflow"
    model_version_policy {{ all {{}} }}
    version_labels {{ key: "stable" value: 123 }}
  }}
  config {{ name: "zoo" base_path: "{root}/zoo" model_platform: "tensorflow" }}
  {more}
}}
"""
TINY = 'config {{ name: "tiny" base_path: "{path}" model_platform: "tensorflow" }}'


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `half` (2 in version 123, 3 in version 124), and `zoo`."""
    from serving_models import save_half_plus, save_zoo

    root = tmp_path_factory.mktemp("models")
    save_half_plus(root / "half" / "00000123", 2.0)
    save_half_plus(root / "half" / "124", 3.0)
    (root / "half" / "no_version").mkdir()
    save_zoo(root / "zoo" / "1")
    return root


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, Path]:
    """The tiny shop: the retriever in memory, and the folder of its one version."""
    import tiny_model

    folder = tmp_path_factory.mktemp("shop") / "tiny"
    return tiny_model.publish(folder), folder


@pytest.fixture(scope="session")
def server(
    models: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[object]:
    """A server of `models` and of the tiny shop, with everything switched on that does no harm."""
    from serving_models import READY_MODELS
    from serving_process import running

    folder = tmp_path_factory.mktemp("config")
    # The shop takes longest to make and to load, and who has models ready does not ask for it.
    is_tiny = READY_MODELS not in os.environ
    more = TINY.format(path=request.getfixturevalue("shop")[1]) if is_tiny else ""
    (folder / "models.pbtxt").write_text(CONFIG.format(root=models, more=more))
    (folder / "monitoring.pbtxt").write_text("prometheus_config { enable: true }")
    with running(
        f"--model_config_file={folder / 'models.pbtxt'}",
        "--allow_version_labels_for_unavailable_models",
        f"--monitoring_config_file={folder / 'monitoring.pbtxt'}",
        "--enable_grpc_healthcheck_service=true",
        "--rest_api_enable_cors_support",
        f"--grpc_socket_path={folder / 'socket'}",
        "--rest_api_timeout_in_ms=3000",
        "--grpc_max_threads=2",
    ) as started:
        started.socket = folder / "socket"
        yield started
