"""The flags and the files that they name, read and checked before anything heavy is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc

from tfmm.serving.batching_options import BatchingOptions, batching_options
from tfmm.serving.model_config import check_config, no_models, single_model
from tfmm.serving.options import ServerOptions
from tfmm.serving.status import invalid
from tfmm.serving.text_protos import read_text_proto

PROMETHEUS_PATH = "/monitoring/prometheus/metrics"


@dataclass(frozen=True)
class Settings:
    """What a server is to do.

    Attributes:
      options: The flags.
      models: The ModelServerConfig to begin with.
      batching: How calls are merged when the flags say that they are.
      prometheus_path: Where the metrics are, or None.
      credentials: Of gRPC's port, or None for a plain one.
    """

    options: ServerOptions
    models: Any
    batching: BatchingOptions
    prometheus_path: str | None
    credentials: grpc.ServerCredentials | None


def read_settings(options: ServerOptions) -> Settings:
    """Reads the files that the flags name.

    Raises:
      ServingError: The flags contradict one another, or a file is not what it should be.
    """
    if not options.port and not options.grpc_socket_path:
        raise invalid("server_options.grpc_port is not set.")
    if not options.model_base_path and not options.model_config_file:
        raise invalid(
            "Both server_options.model_base_path and server_options.model_config_file are empty!"
        )
    _check_parallelism(options)
    models = read_models(options)
    if models.WhichOneof("config") is not None:
        check_config(no_models(), models)
    return Settings(
        options=options,
        models=models,
        batching=_batching(options),
        prometheus_path=_prometheus_path(options),
        credentials=_credentials(options),
    )


def _check_parallelism(options: ServerOptions) -> None:
    apart = options.tensorflow_intra_op_parallelism, options.tensorflow_inter_op_parallelism
    if min(options.tensorflow_session_parallelism, *apart) > 0:
        raise invalid(
            "Either configure server_options.tensorflow_session_parallelism or "
            "(server_options.tensorflow_intra_op_parallelism, "
            "server_options.tensorflow_inter_op_parallelism) separately. "
            "You cannot configure all."
        )


def read_models(options: ServerOptions) -> Any:
    """The ModelServerConfig that the flags describe or name.

    Raises:
      ServingError: The file is none.
    """
    if options.model_config_file:
        return read_text_proto("ModelServerConfig", options.model_config_file)
    return single_model(options.model_name, options.model_base_path)


def _batching(options: ServerOptions) -> BatchingOptions:
    file = options.batching_parameters_file
    if not file:
        return BatchingOptions()
    if not options.enable_batching:
        raise invalid(
            "server_options.batching_parameters_file is set without setting "
            "server_options.enable_batching to true."
        )
    return batching_options(read_text_proto("BatchingParameters", file))


def _prometheus_path(options: ServerOptions) -> str | None:
    if not options.monitoring_config_file:
        return None
    config = read_text_proto("MonitoringConfig", options.monitoring_config_file)
    if not config.prometheus_config.enable:
        return None
    return config.prometheus_config.path or PROMETHEUS_PATH


def _credentials(options: ServerOptions) -> grpc.ServerCredentials | None:
    if not options.ssl_config_file:
        return None
    config = read_text_proto("SSLConfig", options.ssl_config_file)
    return grpc.ssl_server_credentials(
        [(config.server_key.encode(), config.server_cert.encode())],
        root_certificates=config.custom_ca.encode() or None,
        require_client_auth=config.client_verify,
    )
