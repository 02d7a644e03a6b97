"""Multimodal product search and recommendation for shops, on TensorFlow.

Public names are loaded on first use, so that `import tfmm` costs nothing and the parts that need
no TensorFlow never import it. TensorFlow Recommenders works with legacy Keras only, so the switch
that selects it is set here, before TensorFlow can be imported.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from tfmm._cuda import preload_cuda

__version__ = "0.1.0"

_PUBLIC = {
    "Client": "tfmm.client.client",
    "ClientError": "tfmm.client.error",
    "Config": "tfmm.config",
    "Query": "tfmm.client.query",
    "Retriever": "tfmm.retriever",
    "TfmmError": "tfmm.errors",
    "Tls": "tfmm.client.channel",
    "TwoTower": "tfmm.model",
    "evaluate": "tfmm.workflows.evaluate",
    "export": "tfmm.workflows.export",
    "load_config": "tfmm.config",
    "load_model": "tfmm.artifacts",
    "prepare": "tfmm.workflows.prepare",
    "score": "tfmm.workflows.score",
    "train": "tfmm.workflows.train",
}

__all__ = sorted(_PUBLIC)  # noqa: PLE0605 - one table holds the public names


def _select_legacy_keras() -> None:
    if "tensorflow" in sys.modules and os.environ.get("TF_USE_LEGACY_KERAS") not in ("1", "true"):
        raise ImportError(
            "tfmm: expected to be imported before TensorFlow, found TensorFlow loaded with Keras 3;"
            " import tfmm first, or set the environment variable TF_USE_LEGACY_KERAS=1"
        )
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


_select_legacy_keras()
preload_cuda()


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'tfmm' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*_PUBLIC, "__version__"])
