"""A loaded version of a model: its session, its batcher and its signatures, read once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tensorflow.core.protobuf import meta_graph_pb2

from tfmm.artifacts import MANIFEST
from tfmm.contract import SIGNATURE_OF
from tfmm.serving.batching import Batcher, Task
from tfmm.serving.batching_options import AUTOMATIC, BatchingOptions, batching_options
from tfmm.serving.insight import Queries, catalogue_of, queries_of
from tfmm.serving.metrics import Metrics
from tfmm.serving.replies import Replies, Reply, key_of
from tfmm.serving.session import Run, Session
from tfmm.serving.settings import Settings
from tfmm.serving.status import Code, ServingError, invalid
from tfmm.serving.tensors import Array, to_array
from tfmm.serving.text_protos import read_text_proto

DEFAULT_SIGNATURE = "serving_default"
_WIDE = frozenset({DEFAULT_SIGNATURE, "search"})
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
      narrower: Signatures that answer the same when a request holds all of their inputs and no
        others, by the names of these.
    """

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    defaults: Mapping[str, Array]
    method: str
    narrower: Mapping[frozenset[str], Prepared] = field(default_factory=dict)

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
        self._catalogue = catalogue_of(path)
        is_small = self._catalogue is not None and self._catalogue.is_quick
        is_plain = self._catalogue is not None and not self._catalogue.has_foreign_networks
        self._session = Session(path, settings.options, is_small=is_small, is_plain=is_plain)
        self.signatures = self._session.signatures
        try:
            prepared = {key: Prepared.of(value) for key, value in self.signatures.items()}
        except ValueError as error:
            self._session.close()
            raise invalid(f"{path}: a signature's default has no value: {error}") from error
        self.prepared = _with_narrower(prepared) if self._catalogue else prepared
        self._batcher = Batcher(self._session.run, batching) if batching else None
        most_mb = settings.options.reply_cache_mb if self._catalogue else 0
        self._replies = Replies(most_mb * 2**20) if most_mb > 0 else None
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

    def reply(self, key: bytes | None) -> Any:
        """The response to an equal request before, and counts it; None if none is kept."""
        reply = None if key is None or self._replies is None else self._replies.find(key)
        if reply is None:
            return None
        self.metrics.repeated(self.name)
        if reply.queries is not None:
            self.metrics.searched(self.name, reply.queries)
        return reply.response

    def key_of(self, request: Any, call: Call) -> bytes | None:
        """Under what a reply is kept; None for one that is not."""
        return None if self._replies is None or call.is_warmup else key_of(request)

    def keep(self, key: bytes | None, response: Any, queries: Queries | None) -> None:
        """Keeps a response for equal requests."""
        if self._replies is not None and key is not None:
            self._replies.keep(key, Reply(response, queries))

    @property
    def merges(self) -> bool:
        """Whether calls may be merged at all."""
        return self._batcher is not None

    def submit(self, run: Run, call: Call, done: Callable[[], None], *, api: str) -> Task | None:
        """Leaves a run to a thread that merges it with others, and calls `done` in the end.

        Returns:
          The task that will hold its outputs; None for what only `run` can run.

        Raises:
          ServingError: The call is not as it should be, or too many wait; `done` is not called.
        """
        start = time.perf_counter()

        def finished(_: Task) -> None:
            self.metrics.ran(self.name, api, time.perf_counter() - start)
            done()

        return self._batcher.submit(run, call.is_active, finished) if self._batcher else None

    def count(self, given: Mapping[str, Array], outputs: Mapping[str, Array]) -> Queries | None:
        """Counts the queries of a call, if this is one of tfmm's own models, and returns them."""
        if self._catalogue is None:
            return None
        queries = queries_of(given, outputs, self._catalogue.rules)
        if queries is not None:
            self.metrics.searched(self.name, queries)
        return queries

    def close(self) -> None:
        """Gives its memory back; no call may be under way."""
        self.metrics.dropped(self.name, self.version)
        if self._batcher is not None:
            self._batcher.close()
        self._session.close()


def _with_narrower(prepared: Mapping[str, Prepared]) -> dict[str, Prepared]:
    """A tfmm model's signatures, the wide ones with those that do a part of their work.

    The wide signature looks whether there is a photo, a history, a rule; for words alone that
    takes longer than to find products for them.
    """
    made = dict(prepared)
    for name in _WIDE.intersection(made):
        wide = made[name]
        narrow = {
            frozenset([modality]): made[own]
            for modality, own in SIGNATURE_OF.items()
            if own in made
            and list(made[own].inputs) == [modality]
            and made[own].outputs.keys() == wide.outputs.keys()
        }
        made[name] = replace(wide, narrower=narrow)
    return made


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
