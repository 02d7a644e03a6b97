"""Configuration in proto text format.

The wheel of tensorflow-serving-api has no BatchingParameters, MonitoringConfig and SSLConfig. Text
format knows fields by name alone, so that messages with the same names, declared here, read the
same files.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from google.protobuf import text_format  # type: ignore[import-untyped]
from tensorflow_serving.config import model_server_config_pb2

from tfmm.serving.declared import declare
from tfmm.serving.status import Code, ServingError, invalid

_PACKAGE = "tensorflow.serving"
_CLASSES = declare(
    _PACKAGE,
    {
        "BatchingParameters": [
            (1, "Int64Value", "max_batch_size"),
            (2, "Int64Value", "batch_timeout_micros"),
            (3, "Int64Value", "max_enqueued_batches"),
            (4, "Int64Value", "num_batch_threads"),
            (5, "StringValue", "thread_pool_name"),
            (6, "repeated int64", "allowed_batch_sizes"),
            (7, "bool", "pad_variable_length_inputs"),
            (8, "BoolValue", "enable_large_batch_splitting"),
            (9, "Int64Value", "max_execution_batch_size"),
        ],
        "PrometheusConfig": [(1, "bool", "enable"), (2, "string", "path")],
        "MonitoringConfig": [(1, "PrometheusConfig", "prometheus_config")],
        "SSLConfig": [
            (1, "string", "server_key"),
            (2, "string", "server_cert"),
            (3, "string", "custom_ca"),
            (4, "bool", "client_verify"),
        ],
    },
) | {"ModelServerConfig": model_server_config_pb2.ModelServerConfig}


def read_text_proto(kind: str, file: str) -> Any:
    """A message of a kind (`ModelServerConfig`, `BatchingParameters`, ...) from a text file.

    Raises:
      ServingError: The file is absent or is not that; protobuf's own words go to stderr.
    """
    try:
        text = Path(file).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ServingError(Code.NOT_FOUND, f"{file}; No such file or directory") from error
    except (OSError, UnicodeDecodeError) as error:
        raise invalid(f"Invalid protobuf file: '{file}'") from error
    try:
        return text_format.Parse(text, _CLASSES[kind]())
    except text_format.ParseError as error:
        print(f"Error parsing text-format {_PACKAGE}.{kind}: {error}", file=sys.stderr)
        raise invalid(f"Invalid protobuf file: '{file}'") from error
