"""Message classes of small protocols that no wheel of ours brings, declared field by field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import (  # type: ignore[import-untyped]
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    wrappers_pb2,
)

_FIELD = descriptor_pb2.FieldDescriptorProto
_TYPES = {
    "bool": _FIELD.TYPE_BOOL,
    "bytes": _FIELD.TYPE_BYTES,
    "double": _FIELD.TYPE_DOUBLE,
    "float": _FIELD.TYPE_FLOAT,
    "int32": _FIELD.TYPE_INT32,
    "int64": _FIELD.TYPE_INT64,
    "string": _FIELD.TYPE_STRING,
    "uint32": _FIELD.TYPE_UINT32,
    "uint64": _FIELD.TYPE_UINT64,
}
Field = tuple[int, str, str]


def declare(package: str, messages: Mapping[str, Sequence[Field]]) -> dict[str, Any]:
    """Message classes by name.

    Args:
      package: Their proto package.
      messages: For each message its fields: number, type and name. A type is a scalar's, a
        message's of the package or of google.protobuf's wrappers, with `repeated ` in front
        where it is, or `oneof ` where it is one of the message's oneof, `choice`.
    """
    file = descriptor_pb2.FileDescriptorProto(
        name=f"tfmm/{package}.proto",
        package=package,
        syntax="proto3",
        dependency=[wrappers_pb2.DESCRIPTOR.name],
    )
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for number, kind, field in fields:
            how, _, of = kind.rpartition(" ")
            added = message.field.add(
                name=field,
                number=number,
                label=_FIELD.LABEL_REPEATED if how == "repeated" else _FIELD.LABEL_OPTIONAL,
                type=_TYPES.get(of, _FIELD.TYPE_MESSAGE),
            )
            if how == "oneof":
                if not message.oneof_decl:
                    message.oneof_decl.add(name="choice")
                added.oneof_index = 0
            if of not in _TYPES:
                added.type_name = f".{package}.{of}" if of in messages else f".google.protobuf.{of}"
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))
        for name in messages
    }
