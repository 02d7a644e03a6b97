"""A loaded version of a model: its session, its batcher and its signatures, read once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tensorflow.core.protobuf import meta_graph_pb2

from tfmm.artifacts import MANIFEST
from tfmm.serving.batching import Batcher
from tfmm.serving.batching_options import AUTOMATIC, BatchingOptions, batching_options
from tfmm.serving.insight import catalogue_of, queries_of
from tfmm.serving.metrics import Metrics
from tfmm.serving.session import Run, Session
from tfmm.serving.settings import Settings
from tfmm.serving.status import Code, ServingError, invalid
from tfmm.serving.tensors import Array, to_array
from tfmm.serving.text_protos import read_text_proto

DEFAULT_SIGNATURE = "serving_default"
_PER_MODEL_BATCHING = "batching_params.pbtxt"


@dataclass(frozen=True)
class Call:
    """What surrounds a request.

    Attributes:
      timeout_ms: Its time limit; 0 for none.
      is_active: Whether the client still waits.
      check_method: Whether a signature's method_name must fit the call.
      is_warmup: Whether nobody asked, so that it is not counted as a query.
    """

    timeout_ms: int = 0
    is_active: Callable[[], bool] = lambda: True
    check_method: bool = False
    is_warmup: bool = False


@dataclass(frozen=True)
class Prepared:
    """A signature, read once.

    Attributes:
      inputs: Name of the tensor in the graph by alias, sorted; so are `outputs`.
      defaults: Values of the inputs that a request may leave out.
      method: Its method_name.
    """

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    defaults: Mapping[str, Array]
    method: str

    @classmethod
    def of(cls, signature: meta_graph_pb2.SignatureDef) -> Prepared:
        """Reads a SignatureDef."""
        return cls(
            inputs={alias: info.name for alias, info in sorted(signature.inputs.items())},
            outputs={alias: info.name for alias, info in sorted(signature.outputs.items())},
            defaults={alias: to_array(proto) for alias, proto in signature.defaults.items()},
            method=signature.method_name,
        )


class Servable:
    """A version that answers calls.

    Attributes:
      name: The model.
      version: The number of its folder.
      path: The folder.
      signatures: SignatureDef by name.
      prepared: The same, read once.
    """

    def __init__(
        self, name: str, version: int, path: Path, *, settings: Settings, metrics: Metrics
    ) -> None:
        """Loads it.

        Raises:
          ServingError: It cannot be loaded.
        """
        self.name, self.version, self.path = name, version, path
        self.metrics = metrics
        batching = _batching(path, settings)
        self._session = Session(path, settings.options)
        self.signatures = self._session.signatures
        try:
            self.prepared = {key: Prepared.of(value) for key, value in self.signatures.items()}
        except ValueError as error:
            self._session.close()
            raise invalid(f"{path}: a signature's default has no value: {error}") from error
        self._batcher = Batcher(self._session.run, batching) if batching else None
        self._catalogue = catalogue_of(path)
        if self._catalogue is not None:
            metrics.loaded(name, version, self._catalogue)

    def run(self, run: Run, call: Call, *, api: str) -> list[Array]:
        """Runs the graph, perhaps merged with other calls, and returns the fetched arrays.

        Raises:
          ServingError: It failed, or nobody waits for it any more.
        """
        start = time.perf_counter()
        if self._batcher is not None:
            arrays = self._batcher.run(run, call.is_active)
        elif call.is_active():
            arrays = self._session.run(run)
        else:
            raise ServingError(Code.CANCELLED, "Call was cancelled")
        self.metrics.ran(self.name, api, time.perf_counter() - start)
        return arrays

    def count(self, given: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """Counts the queries of a call, if this is one of tfmm's own models."""
        if self._catalogue is None:
            return
        queries = queries_of(given, outputs, self._catalogue.rules)
        if queries is not None:
            self.metrics.searched(self.name, queries)

    def close(self) -> None:
        """Gives its memory back; no call may be under way."""
        self.metrics.dropped(self.name, self.version)
        self._session.close()


def _batching(path: Path, settings: Settings) -> BatchingOptions | None:
    """How a version's calls are merged, if at all.

    Without a flag, tfmm's own models are: a row's answer there depends on no other row.
    """
    options = settings.options
    if options.enable_batching is None:
        return AUTOMATIC if (path / MANIFEST).is_file() else None
    if not options.enable_batching:
        return None
    own = path / _PER_MODEL_BATCHING
    if options.enable_per_model_batching_parameters and own.is_file():
        return batching_options(read_text_proto("BatchingParameters", str(own)))
    return settings.batching
