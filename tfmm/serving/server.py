"""The model server: options in, ports out, and an orderly end."""

from __future__ import annotations

import functools
import logging
import threading
import time
from pathlib import Path

from tfmm.artifacts import register_ops_beforehand
from tfmm.serving.core import ServerCore
from tfmm.serving.grpc_server import GrpcServer
from tfmm.serving.handlers import Handlers
from tfmm.serving.http_server import HttpServer
from tfmm.serving.metrics import Metrics
from tfmm.serving.rest import RestApi
from tfmm.serving.servable import Servable
from tfmm.serving.settings import Settings, read_models
from tfmm.serving.status import ServingError
from tfmm.serving.warmup import warm_up

_LOG = logging.getLogger(__name__)
# What is idle is closed in any case.
_CLOSING_S = 5.0
_LOOKING_S = 0.2


class ModelServer:
    """Serves models by gRPC and REST."""

    def __init__(self, settings: Settings) -> None:
        options = settings.options
        self._settings, self._options = settings, options
        self._stopping = threading.Event()
        self._core = ServerCore(options, self._load)
        self._metrics = Metrics(self._core.is_known)
        self._grpc: GrpcServer | None = None
        self._http: HttpServer | None = None

    def start(self) -> None:
        """Loads the first models, then opens the ports.

        Raises:
          ServingError: A model did not become available, or a port is taken.
        """
        register_ops_beforehand()
        self._core.start(self._settings.models, lambda: not self._stopping.is_set())
        handlers = Handlers(
            self._core, check_method=self._options.enable_signature_method_name_check
        )
        server = GrpcServer(self._settings, handlers, self._metrics, self._stopping)
        server.start()
        self._grpc = server
        self._http = self._start_rest(handlers)
        if self._options.model_config_file and self._options.model_config_file_poll_wait_seconds:
            threading.Thread(target=self._reread_config, name="config", daemon=True).start()

    def stop_soon(self) -> None:
        """Asks `wait` to return; may be called by a signal handler."""
        self._stopping.set()

    @property
    def is_stopping(self) -> bool:
        """Whether `stop_soon` was called."""
        return self._stopping.is_set()

    def wait(self) -> bool:
        """Returns after `stop_soon`, when the calls under way are answered and all is closed.

        Returns:
          False when a call took longer than the grace and still holds a thread.
        """
        # A signal may be taken by a thread of TensorFlow; its handler runs when this one wakes.
        while not self._stopping.wait(_LOOKING_S):
            pass
        _LOG.info("Stopping: calls under way are finished first")
        end = time.monotonic() + max(0, self._options.stop_grace_seconds)
        if self._grpc:
            self._grpc.stop_soon(end - time.monotonic())
        if self._http:
            self._http.stop(end - time.monotonic())
        if self._grpc:
            self._grpc.join()
        return self._core.stop(max(end, time.monotonic() + _CLOSING_S))

    def _load(self, name: str, version: int, path: Path) -> Servable:
        servable = Servable(name, version, path, settings=self._settings, metrics=self._metrics)
        try:
            if self._options.enable_model_warmup:
                warm_up(servable, max(1, self._options.num_request_iterations_for_warmup))
        except ServingError:
            servable.close()
            raise
        return servable

    def _start_rest(self, handlers: Handlers) -> HttpServer | None:
        options = self._options
        if options.rest_api_port == 0:
            return None
        if options.rest_api_port == options.port:
            _LOG.error(
                "--rest_api_port cannot be same as --port. Please use a different port for "
                "HTTP/REST API. Skipped exporting HTTP/REST API."
            )
            return None
        api = RestApi(
            handlers,
            self._metrics,
            timeout_ms=options.rest_api_timeout_in_ms,
            cors=options.rest_api_enable_cors_support,
            prometheus_path=self._settings.prometheus_path,
        )
        where = f"localhost:{options.rest_api_port}"
        try:
            server = HttpServer(options.rest_api_port, api, options.rest_api_num_threads)
        except OSError as error:
            _LOG.error("Failed to start HTTP Server at %s: %s", where, error)
            return None
        server.start()
        _LOG.info("Exporting HTTP/REST API at:%s ...", where)
        return server

    def _reread_config(self) -> None:
        file = Path(self._options.model_config_file)
        while not self._stopping.wait(self._options.model_config_file_poll_wait_seconds):
            # A file whose models never come must not keep its correction from being read.
            is_wanted = functools.partial(self._is_current, file, _stamp(file))
            try:
                self._core.reload(read_models(self._options), is_wanted)
            except ServingError as error:
                _LOG.error("Could not take over %s: %s", file, error)
            except Exception:
                _LOG.exception("Could not take over %s", file)

    def _is_current(self, file: Path, stamp: tuple[int, int] | None) -> bool:
        return not self._stopping.is_set() and _stamp(file) == stamp


def _stamp(file: Path) -> tuple[int, int] | None:
    """What tells whether a file has changed."""
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size
