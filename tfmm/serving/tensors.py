"""TensorProto to NumPy and back, on the proto's typed fields.

`tf.make_ndarray` and `tf.make_tensor_proto` do the same and more, several times as slowly; a server
pays for each of them twice a call. Clients read `float_val` and its siblings, so that replies never
use `tensor_content`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.core.framework import types_pb2

Array = npt.NDArray[Any]

# A shape is a few bytes and may claim anything. More than this is not a request, it is an attack.
_MAX_ELEMENTS = 1 << 28
_FIELDS = {
    tf.float32: "float_val",
    tf.float64: "double_val",
    tf.int64: "int64_val",
    tf.bool: "bool_val",
    tf.string: "string_val",
    tf.uint32: "uint32_val",
    tf.uint64: "uint64_val",
    **dict.fromkeys((tf.int32, tf.int16, tf.int8, tf.uint16, tf.uint8), "int_val"),
    **dict.fromkeys((tf.half, tf.bfloat16), "half_val"),
    tf.complex64: "scomplex_val",
    tf.complex128: "dcomplex_val",
}
_BY_ENUM = {
    dtype.as_datatype_enum: (field, np.dtype(dtype.as_numpy_dtype))
    for dtype, field in _FIELDS.items()
}
_BY_NUMPY = {
    np.dtype(dtype.as_numpy_dtype): (field, dtype.as_datatype_enum)
    for dtype, field in _FIELDS.items()
}
_HALVES = (np.dtype(np.float16), np.dtype(tf.bfloat16.as_numpy_dtype))


def to_array(proto: Any) -> Array:
    """The value of a TensorProto.

    As in TensorFlow, typed values that are too few repeat their last one, none means zeros, and
    too many are cut.

    Raises:
      ValueError: It has no value: no type, no shape, or content of the wrong length.
    """
    if proto.dtype not in _BY_ENUM:
        raise ValueError("dtype")
    field, dtype = _BY_ENUM[proto.dtype]
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    if proto.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        raise ValueError("shape")
    count = math.prod(shape)
    if count > _MAX_ELEMENTS:
        raise ValueError("shape")
    if proto.tensor_content:
        return _from_content(proto.tensor_content, dtype, count).reshape(shape)
    values = getattr(proto, field)
    given = len(values)
    if dtype.kind == "c":
        given //= 2
    flat = _from_values(values, dtype) if given else np.zeros(0, dtype)
    if given < count:
        blank: Any = b"" if dtype.hasobject else 0
        flat = np.concatenate([flat, np.full(count - given, flat[-1] if given else blank, dtype)])
    return flat[:count].reshape(shape)


def to_proto(array: Array, proto: Any) -> None:
    """Writes an array into an empty TensorProto, in the typed field of its type.

    Raises:
      ValueError: No typed field holds this type.
    """
    if array.dtype not in _BY_NUMPY:
        raise ValueError(f"dtype {array.dtype}")
    field, enum = _BY_NUMPY[array.dtype]
    proto.dtype = enum
    shape = proto.tensor_shape
    shape.SetInParent()
    for size in array.shape:
        shape.dim.add().size = size
    flat = array.reshape(-1)
    if array.dtype.kind == "c":
        flat = flat.view(flat.real.dtype)
    elif array.dtype in _HALVES:
        flat = flat.view(np.uint16)
    getattr(proto, field).extend(flat.tolist())


def _from_values(values: Any, dtype: np.dtype[Any]) -> Array:
    if dtype in _HALVES:
        return np.array(values, np.int64).astype(np.uint16).view(dtype)
    if dtype.kind == "c":
        part = np.float32 if dtype == np.complex64 else np.float64
        return np.array(values[: len(values) // 2 * 2], part).view(dtype)
    if dtype.kind in "iu" and dtype.itemsize < 4:
        return np.array(values, np.int32).astype(dtype)
    return np.array(values, dtype)


def _from_content(content: bytes, dtype: np.dtype[Any], count: int) -> Array:
    if dtype.hasobject:
        return np.array(_strings(content, count), object)
    if len(content) != count * dtype.itemsize:
        raise ValueError("tensor_content")
    return np.frombuffer(content, dtype)


def _strings(content: bytes, count: int) -> list[bytes]:
    """Strings of a tensor_content: their lengths as varints, then their bytes."""
    position, lengths = 0, []
    for _ in range(count):
        length = shift = 0
        while True:
            if position >= len(content) or shift > 28:
                raise ValueError("tensor_content")
            byte = content[position]
            position += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        lengths.append(length)
    if position + sum(lengths) != len(content):
        raise ValueError("tensor_content")
    strings = []
    for length in lengths:
        strings.append(content[position : position + length])
        position += length
    return strings


def data_type(array: Array) -> str:
    """TensorFlow's name of an array's type, such as `DT_FLOAT`."""
    return str(types_pb2.DataType.Name(tf.as_dtype(array.dtype).as_datatype_enum))
