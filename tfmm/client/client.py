"""A client of a served model, of `tfmm serve` and of TensorFlow Serving alike; no TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self, Unpack

from tfmm.client.channel import Channel, Tls
from tfmm.client.error import ClientError
from tfmm.client.messages import MESSAGES
from tfmm.client.query import InputSpec, Parts, Query, columns
from tfmm.contract import SIGNATURE_OF
from tfmm.hits import Hit, hits_of
from tfmm.serving.status import Code
from tfmm.serving.tensors import Array, dtype_of, to_array, to_proto

_SEARCH = "serving_default"
_METADATA = "signature_def"
_OUTDATED = (Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION)
Signatures = dict[str, dict[str, InputSpec]]


class Client:
    """Asks a served model by gRPC.

    Safe to use from several threads; use it in a `with` block, or close it.

    Args:
      address: `HOST:PORT` of the server's gRPC port, or `unix:PATH` of its socket.
      model: The model's name there.
      version: A version of it; None for the newest, whichever that is at the time of a call.
      timeout_s: Time for each call, with all its tries: while the server cannot be reached, the
        call is made again.
      tls: Certificates, for a server with TLS.
      keepalive_s: How often a silent connection is checked while a call waits. Servers close
        connections that are checked more often than every 5 minutes unless told otherwise.

    Raises:
      ClientError: The address is none, or a certificate cannot be read.
    """

    def __init__(
        self,
        address: str,
        model: str = "default",
        *,
        version: int | None = None,
        timeout_s: float = 10.0,
        tls: Tls | None = None,
        keepalive_s: float = 330.0,
    ) -> None:
        port = address.rpartition(":")[2]
        if not address.startswith("unix:") and not (port.isdecimal() and int(port) < 1 << 16):
            raise ClientError(f"expected HOST:PORT of a server, received {address!r}")
        self.address = address
        self._model, self._version = model, version
        self._known: Signatures | None = None
        self._channel = Channel(address, timeout_s=timeout_s, tls=tls, keepalive_s=keepalive_s)

    def search(self, **parts: Unpack[Parts]) -> list[Hit]:
        """Asks one query.

        Args:
          **parts: Those of a `Query`: `text`, `image`, `audio`, `history`, `exclude`, `filters` and
            `k`.

        Returns:
          Hits, best first.

        Raises:
          ClientError: The query cannot be sent, or was not answered.
        """
        return self.search_many([Query(**parts)])[0]

    def search_many(self, queries: Sequence[Query]) -> list[list[Hit]]:
        """Asks several queries in one call, and returns the hits of each.

        Raises:
          ClientError: A query cannot be sent, or they were not answered.
        """
        if not queries:
            return []
        return self._hits(_SEARCH, [query.values() for query in queries])

    def similar(
        self,
        product_id: str,
        *,
        exclude: Sequence[str] = (),
        filters: Mapping[str, Any] | None = None,
        k: int | None = None,
    ) -> list[Hit]:
        """Asks for the products that are like one.

        Raises:
          ClientError: It cannot be sent, or was not answered.
        """
        row = Query(exclude=exclude, filters=filters or {}, k=k).values()
        return self._hits("similar", [row | {"product_id": product_id}])[0]

    def reads(self) -> tuple[str, ...]:
        """The modalities that the model reads of a query.

        Raises:
          ClientError: The server did not say.
        """
        return _reads(self._signatures(self._channel.deadline()))

    def predict(self, signature: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Array]:
        """Calls any signature.

        Args:
          signature: Its name, such as `embed_query`.
          rows: For each row of the batch its values by input; what a row leaves out gets the
            input's default. Lists are padded to the input's width, `history` on the left.

        Returns:
          The outputs, [B, ...] each.

        Raises:
          ClientError: There is no such signature or input, or the server refused.
        """
        if not rows:
            raise ClientError("predict: expected at least one row, received none")
        end = self._channel.deadline()
        known = self._signatures(end)
        try:
            return self._predict(signature, rows, known, end)
        except ClientError as error:
            if error.code not in _OUTDATED or not self._is_outdated(known, end):
                raise
        return self._predict(signature, rows, self._signatures(end), end)

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _hits(self, signature: str, rows: Sequence[Mapping[str, Any]]) -> list[list[Hit]]:
        outputs = self.predict(signature, rows)
        if not {"product_id", "score"} <= outputs.keys():
            raise ClientError(
                f"{self.address}: expected a model that tfmm exported, received one that answers"
                f" {', '.join(sorted(outputs))}"
            )
        return [hits_of(outputs, row) for row in range(len(rows))]

    def _predict(
        self, signature: str, rows: Sequence[Mapping[str, Any]], known: Signatures, end: float
    ) -> dict[str, Array]:
        if signature not in known:
            raise ClientError(
                f"{self.address}: expected signatures among {', '.join(sorted(known))},"
                f" received {signature}"
            )
        reads = _reads(known)
        if signature == _SEARCH and reads:
            _check_reads(rows, reads)
        request = MESSAGES["PredictRequest"]()
        self._specify(request, signature)
        for name, array in columns(rows, known[signature]).items():
            to_proto(array, request.inputs.add(key=name).value)
        response = self._channel.call("Predict", request, end)
        return {entry.key: to_array(entry.value) for entry in response.outputs}

    def _is_outdated(self, known: Signatures, end: float) -> bool:
        """Whether a version came since that has other inputs."""
        self._known = None
        try:
            return self._signatures(end) != known
        except ClientError:
            return False

    def _specify(self, request: Any, signature: str = "") -> None:
        request.model_spec.name = self._model
        request.model_spec.signature_name = signature
        if self._version is not None:
            request.model_spec.version.value = self._version

    def _signatures(self, end: float) -> Signatures:
        known = self._known
        if known is None:
            request = MESSAGES["GetModelMetadataRequest"](metadata_field=[_METADATA])
            self._specify(request)
            response = self._channel.call("GetModelMetadata", request, end)
            content = b"".join(e.value.value for e in response.metadata if e.key == _METADATA)
            signatures = MESSAGES["SignatureDefMap"].FromString(content).signature_def
            known = self._known = {
                entry.key: _inputs(entry.value)
                for entry in signatures
                if not entry.key.startswith("__")
            }
        return known


def _reads(known: Signatures) -> tuple[str, ...]:
    return tuple(modality for modality, name in SIGNATURE_OF.items() if name in known)


def _check_reads(rows: Sequence[Mapping[str, Any]], reads: Sequence[str]) -> None:
    for modality in SIGNATURE_OF:
        if modality not in reads and any(modality in row for row in rows):
            raise ClientError(
                f"search: expected a query of {', '.join(reads)}, received {modality}"
            )


def _inputs(signature: Any) -> dict[str, InputSpec]:
    specs = {}
    defaults = {entry.key: entry.value for entry in signature.defaults}
    for entry in signature.inputs:
        sizes = [dim.size for dim in entry.value.tensor_shape.dim]
        width = 0 if len(sizes) < 2 else sizes[1] if sizes[1] > 0 else None
        try:
            dtype = dtype_of(entry.value.dtype)
            default = to_array(defaults[entry.key]) if entry.key in defaults else None
        except ValueError:
            continue  # no client can send such a type
        specs[entry.key] = InputSpec(dtype, width, default)
    return specs
