"""What a ModelServerConfig may say, and what may follow upon what."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from tensorflow_serving.config import model_server_config_pb2

from tfmm.serving.status import Code, ServingError, invalid

_PLATFORM = "tensorflow"
_LIST = "model_config_list"


def no_models() -> Any:
    """The ModelServerConfig of a server before its first."""
    return model_server_config_pb2.ModelServerConfig()


def single_model(name: str, base_path: str) -> Any:
    """The ModelServerConfig of one model."""
    config = model_server_config_pb2.ModelServerConfig()
    config.model_config_list.config.add(name=name, base_path=base_path, model_platform=_PLATFORM)
    return config


def check_config(old: Any, new: Any) -> None:
    """Whether a configuration is legal, and legal after another one.

    Raises:
      ServingError: It is not.
    """
    if new.WhichOneof("config") != _LIST or old.WhichOneof("config") not in (None, _LIST):
        raise ServingError(
            Code.FAILED_PRECONDITION,
            "Cannot transition to requested config. It is only legal to transition from one "
            "ModelConfigList to another.",
        )
    before = {model.name: model for model in old.model_config_list.config}
    seen: set[str] = set()
    for model in new.model_config_list.config:
        if model.name in seen:
            raise invalid(f"Illegal to list model {model.name} multiple times in config list")
        seen.add(model.name)
        if not PurePosixPath(model.base_path).is_absolute():
            raise invalid(
                f"Expected model {model.name} to have an absolute path or URI; got "
                f"base_path()={model.base_path}"
            )
    for model in new.model_config_list.config:
        platform = _platform(model)
        if model.name in before and (was := _platform(before[model.name])) != platform:
            raise invalid(
                f"Illegal to change a model's platform. For model {model.name} platform was "
                f"{was} and new platform requested is {platform}"
            )
        if platform != _PLATFORM:
            raise invalid(f"Model {model.name} requests unsupported platform {platform}")


def _platform(model: Any) -> str:
    if model.model_type:
        if model.model_platform:
            raise invalid(
                "Illegal setting both ModelServerConfig::model_type (deprecated) and "
                "ModelServerConfig::model_platform."
            )
        if model.model_type != model_server_config_pb2.TENSORFLOW:
            raise invalid(f"ModelServerConfig::model_type choice {model.model_type} not supported.")
        return _PLATFORM
    if not model.model_platform:
        raise invalid(
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
            "ModelServerConfig::model_platform."
        )
    return str(model.model_platform)
