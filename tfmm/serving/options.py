"""The flags of `tensorflow_model_server` that `tfmm serve` takes; no TensorFlow."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import Any

_CPUS = os.cpu_count() or 1


def _flag(default: Any, text: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class ServerOptions:
    """Every flag with its default; the names are TensorFlow Serving's unless the text says tfmm."""

    port: int = _flag(8500, "Port of gRPC; 0 for none, then a socket path is needed.")
    grpc_socket_path: str = _flag("", "A UNIX socket for gRPC, beside the port.")
    rest_api_port: int = _flag(0, "Port of HTTP/REST; 0 for none.")
    rest_api_num_threads: int = _flag(4 * _CPUS, "REST requests that are worked on at a time.")
    rest_api_timeout_in_ms: int = _flag(30000, "Time limit of a REST request.")
    rest_api_enable_cors_support: bool = _flag(False, "Send CORS headers.")
    model_name: str = _flag("default", "Name of the model under --model_base_path.")
    model_base_path: str = _flag("", "Absolute folder of a model's versions.")
    model_config_file: str = _flag(
        "", "A text ModelServerConfig: several models, policies, labels."
    )
    model_config_file_poll_wait_seconds: int = _flag(
        0, "Seconds between readings of --model_config_file; 0 reads it once."
    )
    file_system_poll_wait_seconds: int = _flag(
        1, "Seconds between looks for new versions; 0 or less looks once."
    )
    fail_if_no_model_versions_found: bool = _flag(
        False, "Exit when a model has no version at the start."
    )
    max_num_load_retries: int = _flag(5, "How often a failed load is tried again.")
    load_retry_interval_micros: int = _flag(60_000_000, "Pause before a load is tried again.")
    saved_model_tags: str = _flag("serve", "Comma-separated tags of the MetaGraph.")
    enable_model_warmup: bool = _flag(True, "Replay assets.extra/tf_serving_warmup_requests.")
    num_request_iterations_for_warmup: int = _flag(1, "How often each record is replayed.")
    enable_batching: bool | None = _flag(
        None, "Merge calls as the real server does. tfmm: unset merges calls to tfmm's own models."
    )
    batching_parameters_file: str = _flag("", "A text BatchingParameters.")
    enable_per_model_batching_parameters: bool = _flag(
        False, "Read batching_params.pbtxt from each version's folder."
    )
    reply_cache_mb: int = _flag(
        32, "tfmm: memory for what a version of tfmm's own answered lately; 0 for none."
    )
    allow_version_labels_for_unavailable_models: bool = _flag(
        False, "Allow new labels for versions that are not loaded, as at the first start."
    )
    enable_signature_method_name_check: bool = _flag(
        False, "Insist that a signature's method_name fits the call."
    )
    monitoring_config_file: str = _flag("", "A text MonitoringConfig; switches Prometheus on.")
    ssl_config_file: str = _flag("", "A text SSLConfig for gRPC; REST stays plain.")
    grpc_channel_arguments: str = _flag("", "Comma-separated key=value of gRPC.")
    grpc_max_threads: int = _flag(
        max(64, 4 * _CPUS), "gRPC calls that are worked on at a time; five times as many may wait."
    )
    stop_grace_seconds: int = _flag(
        25, "tfmm: how long a stop waits for the calls under way; the rest are cut off."
    )
    enable_grpc_healthcheck_service: bool = _flag(False, "Serve grpc.health.v1.Health.")
    enable_profiler: bool = _flag(True, "Serve tensorflow.ProfilerService, for TensorBoard.")
    tensorflow_session_parallelism: int = _flag(
        0, "Threads of a session; 0 leaves it to TensorFlow."
    )
    tensorflow_intra_op_parallelism: int = _flag(0, "Threads within an operation.")
    tensorflow_inter_op_parallelism: int = _flag(0, "Operations that run at the same time.")
    per_process_gpu_memory_fraction: float = _flag(0.0, "Share of a GPU's memory; 0 is automatic.")


def boolean_flags() -> list[str]:
    """Names of the flags that may stand without a value, which then is true."""
    fields = dataclasses.fields(ServerOptions)
    return [field.name for field in fields if str(field.type).startswith("bool")]
