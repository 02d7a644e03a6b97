"""Plain trees of values, as TOML and JSON hold them, to dataclasses. Loads without TensorFlow."""

from __future__ import annotations

import dataclasses
import tomllib
import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from tfmm.errors import TfmmError


def set_value(tree: dict[str, Any], override: str) -> None:
    """Sets one value of a tree.

    Args:
      tree: Tables of values, changed in place.
      override: `a.b=value`; the value is TOML, or else taken as a plain string.

    Raises:
      TfmmError: It is not of that form, or `a` holds a value.
    """
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise TfmmError(f"--set: expected a.b=value, received {override!r}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *parents, leaf = key.strip().split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise TfmmError(f"--set {key}: expected a table at {parent!r}, found a value")
    tree[leaf] = value


def make(kind: Any, tree: Any, where: str, prefix: str = "") -> Any:
    """Makes a dataclass of a tree, dataclasses within it included; absent keys keep their default.

    Args:
      kind: The dataclass.
      tree: A table of values.
      where: What errors name as the source.
      prefix: Path of `tree` within the source, with a dot at its end.

    Raises:
      TfmmError: A key or a value is not one that the dataclass has.
    """
    if not isinstance(tree, dict):
        raise TfmmError(f"{where}: {prefix or 'recipe'}: expected a table, received {tree!r}")
    hints = get_type_hints(kind)
    unknown = sorted(set(tree) - set(hints))
    if unknown:
        known = ", ".join(sorted(hints))
        raise TfmmError(
            f"{where}: {prefix}{unknown[0]}: expected one of {known}, received this key"
        )
    values = {
        name: _convert(hints[name], value, where, f"{prefix}{name}") for name, value in tree.items()
    }
    return kind(**values)


def _convert(hint: Any, value: Any, where: str, key: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return make(hint, value, where, f"{key}.")
    origin = get_origin(hint)
    if origin is Literal:
        if value in get_args(hint):
            return value
        choices = ", ".join(map(str, get_args(hint)))
        raise TfmmError(f"{where}: {key}: expected one of {choices}, received {value!r}")
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise TfmmError(f"{where}: {key}: expected a list, received {value!r}")
        return tuple(_convert(get_args(hint)[0], item, where, key) for item in value)
    if origin in (Union, types.UnionType):
        raise AssertionError(f"recipes have no unions: {key}")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not hint:
        raise TfmmError(f"{where}: {key}: expected {hint.__name__}, received {value!r}")
    return value
