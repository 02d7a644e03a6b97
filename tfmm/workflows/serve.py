"""`tfmm serve`: a model server that speaks TensorFlow Serving's protocol."""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import sys
from pathlib import Path

from tfmm.serving.options import ServerOptions
from tfmm.serving.settings import read_settings
from tfmm.serving.status import ServingError

_FAILED = 255
_REST_PORT = 8501


def serve(saved_model: Path | None, options: ServerOptions) -> int:
    """Serves models until SIGTERM or SIGINT, then finishes the calls under way.

    Args:
      saved_model: The folder of a model's versions, served under the folder's name unless the
        options give another, with REST on port 8501 unless they give one. None when the options
        say it all.
      options: The flags.

    Returns:
      The exit status: 0 after an orderly end; 255, as of the real server, when it could not start,
      and then the reason is on stdout.

    Raises:
      TfmmError: `saved_model` holds no version.
    """
    _log_to_stderr()
    if saved_model is not None:
        options = _for_folder(saved_model, options)
    try:
        settings = read_settings(options)
    except ServingError as error:
        return _could_not_start(error)
    # Sessions share the threads of the first one otherwise, and as many as that wants.
    os.environ.setdefault("TF_OVERRIDE_GLOBAL_THREADPOOL", "1")
    # TensorFlow loads only now that the flags are known to be good.
    from tfmm.serving.server import ModelServer  # noqa: PLC0415

    server = ModelServer(settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.stop_soon())
    try:
        server.start()
    except ServingError as error:
        if not server.is_stopping:
            return _could_not_start(error)
    if not server.wait():
        # A call that nothing can end holds a thread, for which Python would wait.
        sys.stderr.flush()
        os._exit(0)
    return 0


def _for_folder(saved_model: Path, options: ServerOptions) -> ServerOptions:
    from tfmm.artifacts import latest_version  # noqa: PLC0415

    latest_version(saved_model)
    folder = saved_model.resolve()
    named = options.model_name != ServerOptions.model_name
    return dataclasses.replace(
        options,
        model_base_path=str(folder),
        model_name=options.model_name if named else folder.name,
        rest_api_port=options.rest_api_port or _REST_PORT,
    )


def _log_to_stderr() -> None:
    """Our own messages; TensorFlow's Python front has nothing to say to who runs a server."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("tfmm")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


def _could_not_start(error: ServingError) -> int:
    print(f"Failed to start server. Error: {error}", flush=True)
    return _FAILED
