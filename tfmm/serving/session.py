"""One loaded version of a model: the DirectSession that TensorFlow Serving itself would run."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow.python.client import pywrap_tf_session

from tfmm.artifacts import register_ops
from tfmm.errors import TfmmError
from tfmm.serving.options import ServerOptions
from tfmm.serving.status import Code, ServingError, invalid
from tfmm.serving.tensors import Array

_INFINITE = 0
_MAX_TIMEOUT_MS = 2**31 - 1
_CALLERS_THREAD = -1


@dataclass(frozen=True)
class Run:
    """What a call wants of a session.

    Attributes:
      feeds: Arrays by the name of their tensor in the graph.
      fetches: Names of the tensors to return.
      timeout_ms: Its time limit; 0 for none.
      widths: Values that set the width of the reply: calls that differ in them are merged only
        when the user insists, so that each gets the reply that it would get alone.
    """

    feeds: Mapping[str, Array]
    fetches: Sequence[str]
    timeout_ms: int = _INFINITE
    widths: tuple[bytes, ...] = ()


class Session:
    """A SavedModel in a session of its own.

    `Session.run` of TensorFlow's Python front wraps errors in stack traces and takes longer than
    many a model. This calls what it calls (private, and guarded by a test), which releases the GIL
    and raises the texts of the C++ code that the real server runs.

    Attributes:
      signatures: SignatureDef by name, with `__saved_model_init_op`.
    """

    def __init__(
        self,
        path: Path,
        options: ServerOptions,
        *,
        is_small: bool = False,
        is_plain: bool = False,
    ) -> None:
        """Loads a version.

        Args:
          path: Its folder.
          options: The flags.
          is_small: Whether a run takes milliseconds, of operations that take microseconds. It is
            then done by the thread that asks for it, from the first to the last, unless the flags
            say how many threads there are to be: to share such work takes longer than to do it.
          is_plain: Whether the graph is of hundreds of small functions, without large networks. It
            is then optimised once instead of twice and not for memory, which takes half as long
            and leaves it as fast.

        Raises:
          ServingError: It cannot be loaded.
        """
        tags = [tag for tag in options.saved_model_tags.split(",") if tag]
        given = options.tensorflow_session_parallelism or options.tensorflow_inter_op_parallelism
        self._in_callers_thread = is_small and not given
        config = session_config(options, is_small=is_small, is_plain=is_plain)
        self._graph = tf.Graph()
        self._outputs: dict[str, Any] = {}
        with self._graph.as_default():
            self._session = tf.compat.v1.Session(graph=self._graph, config=config)
        try:
            if (path / "saved_model.pb").is_file():
                register_ops(path)
            with self._graph.as_default():
                loaded = tf.compat.v1.saved_model.loader.load(self._session, tags, str(path))
        except Exception as error:
            self.close()
            raise _load_error(path, tags, error) from error
        self.signatures: dict[str, meta_graph_pb2.SignatureDef] = dict(loaded.signature_def)

    def run(self, run: Run) -> list[Array]:
        """Runs the graph once and returns the fetched arrays.

        Raises:
          ServingError: TensorFlow's own code and text.
        """
        feeds = {self._output(name): array for name, array in run.feeds.items()}
        fetches = [self._output(name) for name in run.fetches]
        options = _run_options(run.timeout_ms, in_callers_thread=self._in_callers_thread)
        try:
            return pywrap_tf_session.TF_SessionRun_wrapper(
                self._session._session, options, feeds, fetches, [], None
            )
        except tf.errors.OpError as error:
            raise ServingError(Code(error.error_code), error.message) from error
        except (TypeError, ValueError, RuntimeError) as error:
            raise invalid(str(error)) from error
        finally:
            if options is not None:
                pywrap_tf_session.TF_DeleteBuffer(options)

    def close(self) -> None:
        """Gives the memory back; nobody may be running."""
        self._session.close()
        self._outputs.clear()
        del self._session, self._graph
        gc.collect()
        _return_memory()

    def _output(self, name: str) -> Any:
        output = self._outputs.get(name)
        if output is None:
            try:
                output = self._graph.get_tensor_by_name(name)._as_tf_output()
            except (KeyError, ValueError) as error:
                raise invalid(
                    f"Tensor {name}, specified in either feed_devices or fetch_devices was not "
                    "found in the Graph"
                ) from error
            self._outputs[name] = output
        return output


def _return_memory() -> None:
    """Gives freed memory back to the system, where the C library can: it keeps it by default."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def session_config(
    options: ServerOptions, *, is_small: bool = False, is_plain: bool = False
) -> Any:
    """The ConfigProto that a `Session` of these arguments has."""
    both = options.tensorflow_session_parallelism
    config = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=options.tensorflow_intra_op_parallelism
        or both
        or int(is_small),
        inter_op_parallelism_threads=options.tensorflow_inter_op_parallelism or both,
    )
    share = options.per_process_gpu_memory_fraction
    config.gpu_options.per_process_gpu_memory_fraction = share
    config.gpu_options.allow_growth = share == 0
    if is_plain:
        rewriting = config.graph_options.rewrite_options
        rewriting.meta_optimizer_iterations = rewriting.ONE
        rewriting.memory_optimization = rewriting.NO_MEM_OPT
    return config


def _run_options(timeout_ms: int, *, in_callers_thread: bool) -> Any:
    """A TF_Buffer with RunOptions, which the caller deletes, or None where all is as usual."""
    if timeout_ms <= _INFINITE and not in_callers_thread:
        return None
    options = tf.compat.v1.RunOptions(
        timeout_in_ms=min(max(timeout_ms, _INFINITE), _MAX_TIMEOUT_MS),
        inter_op_thread_pool=_CALLERS_THREAD if in_callers_thread else 0,
    )
    return pywrap_tf_session.TF_NewBufferFromString(options.SerializeToString())


def _load_error(path: Path, tags: Sequence[str], error: Exception) -> ServingError:
    if isinstance(error, tf.errors.OpError):
        return ServingError(Code(error.error_code), error.message)
    if not any((path / name).is_file() for name in ("saved_model.pb", "saved_model.pbtxt")):
        return ServingError(
            Code.NOT_FOUND,
            f"Could not find SavedModel .pb or .pbtxt at supplied export directory path: {path}",
        )
    if isinstance(error, RuntimeError) and "MetaGraphDef" in str(error):
        wanted = " ".join(tags)
        return ServingError(
            Code.NOT_FOUND,
            f"Could not find meta graph def matching supplied tags: {{ {wanted} }}. To inspect "
            "available tag-sets in the SavedModel, please use the SavedModel CLI: "
            "`saved_model_cli`",
        )
    if isinstance(error, TfmmError):
        return ServingError(Code.FAILED_PRECONDITION, str(error))
    return ServingError(Code.INTERNAL, f"{type(error).__name__}: {error}")
