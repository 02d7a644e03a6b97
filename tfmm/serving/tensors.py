"""TensorProto to NumPy and back, on the proto's typed fields.

`tf.make_ndarray` and `tf.make_tensor_proto` do the same and more, several times as slowly; a server
pays for each of them twice a call. Clients read `float_val` and its siblings, so that replies never
use `tensor_content`. Loads without TensorFlow, since the client uses it too.
"""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# A shape is a few bytes and may claim anything. More than this is not a request, it is an attack;
# so is more than this beyond what the request itself holds.
_MAX_ELEMENTS = 1 << 28
_MAX_REPEATED = 1 << 22
_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
# Number and name of TensorFlow's DataType, the field of a TensorProto, and NumPy's type.
_TYPES: tuple[tuple[int, str, str, np.dtype[Any]], ...] = (
    (1, "DT_FLOAT", "float_val", np.dtype(np.float32)),
    (2, "DT_DOUBLE", "double_val", np.dtype(np.float64)),
    (3, "DT_INT32", "int_val", np.dtype(np.int32)),
    (4, "DT_UINT8", "int_val", np.dtype(np.uint8)),
    (5, "DT_INT16", "int_val", np.dtype(np.int16)),
    (6, "DT_INT8", "int_val", np.dtype(np.int8)),
    (7, "DT_STRING", "string_val", np.dtype(object)),
    (8, "DT_COMPLEX64", "scomplex_val", np.dtype(np.complex64)),
    (9, "DT_INT64", "int64_val", np.dtype(np.int64)),
    (10, "DT_BOOL", "bool_val", np.dtype(np.bool_)),
    (14, "DT_BFLOAT16", "half_val", _BFLOAT16),
    (17, "DT_UINT16", "int_val", np.dtype(np.uint16)),
    (18, "DT_COMPLEX128", "dcomplex_val", np.dtype(np.complex128)),
    (19, "DT_HALF", "half_val", np.dtype(np.float16)),
    (22, "DT_UINT32", "uint32_val", np.dtype(np.uint32)),
    (23, "DT_UINT64", "uint64_val", np.dtype(np.uint64)),
)
_BY_ENUM = {enum: (field, dtype) for enum, _, field, dtype in _TYPES}
_BY_NUMPY = {dtype: (field, enum) for enum, _, field, dtype in _TYPES}
_NAMES = {dtype: name for _, name, _, dtype in _TYPES}
_HALVES = (np.dtype(np.float16), _BFLOAT16)


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
    if count - given > _MAX_REPEATED:
        raise ValueError("shape")
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


def dtype_of(enum: int) -> np.dtype[Any]:
    """NumPy's type of a DataType.

    Raises:
      ValueError: There is none.
    """
    if enum not in _BY_ENUM:
        raise ValueError(f"dtype {enum}")
    return _BY_ENUM[enum][1]


def data_type(array: Array) -> str:
    """TensorFlow's name of an array's type, such as `DT_FLOAT`."""
    return _NAMES.get(array.dtype, str(array.dtype))
