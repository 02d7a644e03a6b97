"""From the JSON of a REST request to the messages that gRPC takes."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from tensorflow.core.example import example_pb2
from tensorflow.core.framework import tensor_pb2, types_pb2

from tfmm.serving.json_text import kind_of, parse_object, printable, to_bytes, to_text
from tfmm.serving.servable import DEFAULT_SIGNATURE
from tfmm.serving.status import Code, ServingError, invalid

_INT32, _UINT32 = range(-(2**31), 2**31), range(2**32)
_INT64, _UINT64 = range(-(2**63), 2**63), range(2**64)
# Field of a TensorProto and the numbers that it takes.
_INTEGERS = {
    **dict.fromkeys(
        (types_pb2.DT_INT32, types_pb2.DT_INT16, types_pb2.DT_INT8, types_pb2.DT_UINT8),
        ("int_val", _INT32),
    ),
    types_pb2.DT_INT64: ("int64_val", _INT64),
    types_pb2.DT_UINT32: ("uint32_val", _UINT32),
    types_pb2.DT_UINT64: ("uint64_val", _UINT64),
}
_FLOATS = {
    types_pb2.DT_FLOAT: ("float_val", np.float32),
    types_pb2.DT_DOUBLE: ("double_val", np.float64),
}
Types = Mapping[str, int]


def fill_predict(body: bytes, request: Any, inputs_of: Callable[[str], Types]) -> bool:
    """Fills a PredictRequest, whose model is already in it.

    Args:
      body: The JSON.
      request: The message.
      inputs_of: Types by alias of a signature's inputs.

    Returns:
      Whether the request was in rows (`instances`), and not in columns (`inputs`).

    Raises:
      ServingError: The JSON does not fit the signature.
    """
    document = parse_object(body)
    _fill_signature(document, request)
    name = request.model_spec.signature_name
    types = inputs_of(name or DEFAULT_SIGNATURE)
    if not types:
        raise invalid(f"Failed to get input map for signature: {name or 'DEFAULT'}")
    if "instances" in document and "inputs" in document:
        raise _malformed(
            document,
            "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist ",
        )
    if "instances" in document:
        rows = document["instances"]
        if not isinstance(rows, list):
            raise _malformed(document, "Excepting 'instances' to be an list/array")
        if not rows:
            raise _malformed(document, "No values in 'instances' array")
        _fill_rows(rows, types, request.inputs)
        return True
    if "inputs" in document:
        _fill_columns(document["inputs"], types, request.inputs)
        return False
    raise invalid("Missing 'inputs' or 'instances' key")


def fill_examples(body: bytes, request: Any) -> None:
    """Fills a ClassificationRequest or RegressionRequest, whose model is already in it.

    Raises:
      ServingError: The JSON is not a list of examples.
    """
    document = parse_object(body)
    _fill_signature(document, request)
    holder = request.input.example_list
    if "context" in document:
        holder = request.input.example_list_with_context
        holder.context.CopyFrom(_example(document["context"]))
    if "examples" not in document:
        raise _malformed(
            document, "When method is classify, key 'examples' is expected and was not found"
        )
    examples = document["examples"]
    if not isinstance(examples, list):
        raise _malformed(document, "Expecting 'examples' value to be an list/array")
    if not examples:
        raise _malformed(document, "'examples' value is an empty array")
    for value in examples:
        holder.examples.append(_example(value))


def _fill_signature(document: Mapping[str, Any], request: Any) -> None:
    if "signature_name" not in document:
        return
    name = document["signature_name"]
    if not isinstance(name, str):
        raise _malformed(
            document, "not formatted correctly. 'signature_name' key must be a string value."
        )
    request.model_spec.signature_name = printable(name)


def _fill_rows(rows: list[Any], types: Types, tensors: Any) -> None:
    if not isinstance(rows[0], dict) and len(types) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors "
            "required as per tensorinfo_map"
        )
    named = _is_object(rows[0])
    alone = next(iter(types))
    shapes: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        if named != _is_object(row):
            expected, found = ("object", "list") if named else ("value/list", "object")
            raise invalid(f"Expecting {expected} but got {found} at item {index} of input list")
        for name, value in row.items() if named else [(alone, row)]:
            try:
                _add_item(value, name, types, shapes, tensors)
            except ServingError as error:
                key = f" key: {name}" if named else ""
                raise invalid(
                    f"Failed to process element: {index}{key} of 'instances' list. Error: {error}"
                ) from error
        if named and set(row) != set(types):
            raise invalid(
                f"Failed to process element: {index} of 'instances' list. JSON object: "
                f"{to_text(row)} keys must be equal to: {','.join(sorted(types))}"
            )
    for name, shape in shapes.items():
        tensors[name].dtype = types[name]
        _set_shape(tensors[name], [len(rows), *shape])


def _add_item(
    value: Any, name: str, types: Types, shapes: dict[str, list[int]], tensors: Any
) -> None:
    """Adds one row's value of an input; every row's has the same shape."""
    if name not in types:
        raise invalid(f"JSON object: does not have named input: {name}")
    shape = _shape(value)
    _fill_values(value, 0, shape, types[name], tensors[name])
    known = shapes.setdefault(name, shape)
    if math.prod(known) != math.prod(shape):
        raise invalid(f"Expecting tensor size: {math.prod(known)} but got: {math.prod(shape)}")
    if known != shape:
        raise invalid(f"Expecting shape {_bracketed(known)} but got: {_bracketed(shape)}")


def _fill_columns(value: Any, types: Types, tensors: Any) -> None:
    if not _is_object(value):
        if len(types) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors "
                "required as per tensorinfo_map"
            )
        value = {next(iter(types)): value}
    for name, dtype in types.items():
        if name not in value:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
        shape = _shape(value[name])
        tensors[name].dtype = dtype
        _set_shape(tensors[name], shape)
        _fill_values(value[name], 0, shape, dtype, tensors[name])


def _fill_values(
    value: Any, level: int, shape: list[int], dtype: int, tensor: tensor_pb2.TensorProto
) -> None:
    """Adds nested lists of a shape to the typed field of a tensor, depth first."""
    if isinstance(value, list):
        if level >= len(shape):
            raise invalid(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
        if len(value) != shape[level]:
            raise invalid(
                f"Encountered list at unexpected size: {len(value)} at level: {level} "
                f"expected size: {shape[level]}"
            )
        for item in value:
            _fill_values(item, level + 1, shape, dtype, tensor)
        return
    if level != len(shape):
        raise invalid(
            f"JSON Value: {to_text(value)} found at incorrect level: {level + 1} in the JSON DOM. "
            f"Expected at level: {len(shape)}"
        )
    _add_value(value, dtype, tensor)


def _add_value(value: Any, dtype: int, tensor: tensor_pb2.TensorProto) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if dtype in _FLOATS and is_number:
        field, kind = _FLOATS[dtype]
        getattr(tensor, field).append(_float(value, kind))
    elif dtype in _INTEGERS and is_number and isinstance(value, int):
        field, allowed = _INTEGERS[dtype]
        if value not in allowed:
            raise _wrong_type(value, dtype)
        getattr(tensor, field).append(value)
    elif dtype == types_pb2.DT_BOOL and isinstance(value, bool):
        tensor.bool_val.append(value)
    elif dtype == types_pb2.DT_STRING and isinstance(value, str):
        tensor.string_val.append(to_bytes(value))
    elif dtype == types_pb2.DT_STRING and isinstance(value, dict):
        tensor.string_val.append(_from_base64(value))
    elif dtype in (*_FLOATS, *_INTEGERS, types_pb2.DT_BOOL, types_pb2.DT_STRING):
        raise _wrong_type(value, dtype)
    else:
        raise ServingError(
            Code.UNIMPLEMENTED,
            f"Conversion of JSON Value: {to_text(value)} to type: {type_name(dtype)}",
        )


def _float(value: float, kind: Any) -> float:
    """A number that a type holds; an integer must be held to the last digit."""
    largest = 2 ** (np.finfo(kind).nmant + 1) - 1 if isinstance(value, int) else np.finfo(kind).max
    if math.isfinite(value) and abs(value) > largest:
        target = "float" if kind is np.float32 else "double"
        raise invalid(
            f"Cannot convert JSON value: {to_text(value)} to {target} without loss of precision."
        )
    return value


def _from_base64(value: Mapping[str, Any]) -> bytes:
    if not _is_base64(value):
        raise invalid(f"JSON Value: {to_text(value)} not formatted correctly for base64 data")
    text = value["b64"].translate({ord(c): None for c in " \t\r\n"}).rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid("Unable to base64 decode") from error


def _example(value: Any) -> example_pb2.Example:
    if not isinstance(value, dict):
        raise invalid(f"Example must be JSON object but got JSON {kind_of(value)}")
    example = example_pb2.Example()
    for name, content in value.items():
        feature = example.features.feature[printable(name)]
        for item in content if isinstance(content, list) else [content]:
            _add_to_feature(item, name, feature)
    return example


def _add_to_feature(value: Any, name: str, feature: Any) -> None:
    field: str
    match value:
        case bool():
            field, value = "int64_list", int(value)
        case int():
            if value not in _INT64:
                raise invalid(f"Feature: {name} has uint64 element. Only int64 is supported.")
            field = "int64_list"
        case float():
            field, value = "float_list", _float(value, np.float32)
        case str():
            field, value = "bytes_list", to_bytes(value)
        case dict() if _is_base64(value):
            field, value = "bytes_list", _from_base64(value)
        case _:
            raise invalid(
                f"Feature: {name} has element with unexpected JSON type: {kind_of(value)}"
            )
    known = feature.WhichOneof("kind")
    if known not in (None, field):
        raise invalid(
            f"Unexpected element type in feature: {name} expecting type: "
            f"{known.removesuffix('_list')}"
        )
    getattr(feature, field).value.append(value)


def type_name(dtype: int) -> str:
    """TensorFlow's short name of a type: `float`, `int32`, `string`."""
    return str(types_pb2.DataType.Name(dtype)).removeprefix("DT_").lower()


def _shape(value: Any) -> list[int]:
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        value = value[0] if value else None
    return shape


def _set_shape(tensor: tensor_pb2.TensorProto, shape: list[int]) -> None:
    tensor.tensor_shape.SetInParent()
    for size in shape:
        tensor.tensor_shape.dim.add().size = size


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and not _is_base64(value)


def _is_base64(value: Mapping[str, Any]) -> bool:
    return isinstance(value, dict) and list(value) == ["b64"] and isinstance(value["b64"], str)


def _bracketed(shape: list[int]) -> str:
    return f"[{','.join(str(size) for size in shape)}]"


def _wrong_type(value: Any, dtype: int) -> ServingError:
    return invalid(
        f"JSON Value: {to_text(value)} Type: {kind_of(value)} is not of expected type: "
        f"{type_name(dtype)}"
    )


def _malformed(document: Any, what: str) -> ServingError:
    return invalid(f"JSON Value: {to_text(document)} {what}")
