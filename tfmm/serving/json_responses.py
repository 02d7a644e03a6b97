"""From the messages that answer gRPC to the JSON that answers REST."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format  # type: ignore[import-untyped]
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import get_model_metadata_pb2

from tfmm.serving.json_requests import type_name
from tfmm.serving.json_text import Writer, decimal, printable
from tfmm.serving.status import invalid
from tfmm.serving.tensors import Array, to_array

# Output aliases with this ending hold bytes, which JSON carries in base64.
_BYTES = "_bytes"
_WRITABLE = frozenset(
    (
        types_pb2.DT_FLOAT,
        types_pb2.DT_DOUBLE,
        types_pb2.DT_HALF,
        types_pb2.DT_INT8,
        types_pb2.DT_INT16,
        types_pb2.DT_INT32,
        types_pb2.DT_INT64,
        types_pb2.DT_UINT8,
        types_pb2.DT_UINT32,
        types_pb2.DT_UINT64,
        types_pb2.DT_BOOL,
        types_pb2.DT_STRING,
    )
)


def predictions(outputs: Mapping[str, Any], *, in_rows: bool) -> str:
    """The outputs of a PredictResponse: a list of rows, or a list for each output.

    Raises:
      ServingError: Rows were asked for and the outputs have none, or JSON has no such type.
    """
    if not outputs:
        raise invalid("Cannot convert empty tensor map to JSON")
    tensors = {alias: _Tensor(alias, outputs[alias]) for alias in sorted(outputs)}
    writer = Writer()
    writer.start("{")
    writer.string("predictions" if in_rows else "outputs")
    if in_rows:
        _write_rows(tensors, _batch_size(outputs), writer)
    else:
        _write_columns(tensors, writer)
    writer.end()
    return writer.text()


def classifications(result: Any) -> str:
    """The result of a ClassificationResponse: for each example pairs of label and score."""
    writer = _results()
    for row in result.classifications:
        writer.one_line = True
        writer.start("[")
        for one in row.classes:
            writer.start("[")
            writer.string(one.label)
            writer.raw(decimal(one.score, double=False))
            writer.end()
        writer.end()
        writer.one_line = False
    return _closed(writer)


def regressions(result: Any) -> str:
    """The result of a RegressionResponse: a value for each example."""
    writer = Writer()
    writer.start("{")
    writer.string("results")
    writer.one_line = True
    writer.start("[")
    for one in result.regressions:
        writer.raw(decimal(one.value, double=False))
    return _closed(writer)


def status(response: Any) -> str:
    """A GetModelStatusResponse."""
    return _message(response, names=False) + "\n"


def metadata(response: Any) -> str:
    """A GetModelMetadataResponse, with its signatures unpacked."""
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata["signature_def"].Unpack(signatures)
    spec = _message(response.model_spec, names=True)
    definitions = _message(signatures, names=True)
    return f'{{\n"model_spec":{spec},\n"metadata": {{"signature_def": {definitions}}}\n}}\n'


def error(message: str) -> str:
    """The body of a failed request."""
    text = json.dumps(printable(message), ensure_ascii=False)
    return f'{{\n    "error": {text}\n}}'


class _Tensor:
    """An output and how its values are written."""

    def __init__(self, alias: str, proto: Any) -> None:
        self.dtype = proto.dtype
        if proto.dtype not in _WRITABLE:
            raise invalid(f"Failed to write JSON value for tensor type: {type_name(proto.dtype)}")
        self.array: Array = to_array(proto)
        self.values: Any = self.array.tolist()
        self._as_bytes = proto.dtype == types_pb2.DT_STRING and alias.endswith(_BYTES)

    def write(self, value: Any, writer: Writer) -> None:
        """Writes a value or nested lists of values."""
        match value:
            case list():
                writer.start("[")
                for item in value:
                    self.write(item, writer)
                writer.end()
            case bool():
                writer.raw("true" if value else "false")
            case float():
                writer.raw(decimal(value, double=self.dtype == types_pb2.DT_DOUBLE))
            case bytes() if self._as_bytes:
                writer.start("{")
                writer.string("b64")
                writer.string(base64.b64encode(value).decode("ascii"))
                writer.end()
            case bytes():
                writer.string(value.decode("utf-8", "surrogateescape"))
            case _:
                writer.raw(str(value))


def _batch_size(outputs: Mapping[str, Any]) -> int:
    sizes: dict[str, int] = {}
    for alias in sorted(outputs):
        dims = outputs[alias].tensor_shape.dim
        if not dims:
            raise invalid(f"Tensor name: {alias} has no shape information ")
        sizes[alias] = dims[0].size
        first = next(iter(sizes.values()))
        if sizes[alias] != first:
            raise invalid(
                f"Tensor name: {alias} has inconsistent batch size: {sizes[alias]} "
                f"expecting: {first}"
            )
    return next(iter(sizes.values()))


def _write_rows(tensors: Mapping[str, _Tensor], rows: int, writer: Writer) -> None:
    named = len(tensors) > 1
    writer.start("[")
    for row in range(rows):
        if named:
            writer.start("{")
        writer.one_line = True
        for alias, tensor in tensors.items():
            if named:
                writer.string(alias)
            tensor.write(tensor.values[row], writer)
        writer.one_line = False
        if named:
            writer.end()
    writer.end()


def _write_columns(tensors: Mapping[str, _Tensor], writer: Writer) -> None:
    named = len(tensors) > 1
    if named:
        writer.start("{")
    for alias, tensor in tensors.items():
        if named:
            writer.string(alias)
        tensor.write(tensor.values, writer)
    if named:
        writer.end()


def _results() -> Writer:
    writer = Writer()
    writer.start("{")
    writer.string("results")
    writer.start("[")
    return writer


def _closed(writer: Writer) -> str:
    writer.end()
    writer.end()
    return writer.text()


def _message(message: Any, *, names: bool) -> str:
    text = json_format.MessageToJson(
        message,
        including_default_value_fields=True,
        preserving_proto_field_name=names,
        indent=1,
        ensure_ascii=False,
    )
    return str(text)
