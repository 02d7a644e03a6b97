"""Queries as people write them, and the tensors that a signature wants."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from tfmm.client.error import ClientError
from tfmm.client.media import photo, sound
from tfmm.contract import is_of_history, padded
from tfmm.serving.tensors import Array

# What is no filter of a search.
_PARTS = ("text", "image", "audio", "history", "exclude", "k")
_CONTEXT = ("history_event", "history_age_seconds", "hour", "place")
_SHOWN = 80


class Parts(TypedDict, total=False):
    """The arguments of `Client.search`; all are optional. See `Query`."""

    text: str
    image: str | Path | bytes | None
    audio: str | Path | bytes | None
    history: Sequence[str]
    exclude: Sequence[str]
    filters: Mapping[str, Any]
    k: int | None


@dataclass(frozen=True)
class Query:
    """One query: any mixture of its parts; none at all asks for the popular products.

    Attributes:
      text: Words.
      image: A photo, a file or its bytes.
      audio: A spoken phrase, a file or its bytes.
      history: Ids of the products that the shopper looked at, oldest first; of more than the model
        reads, the newest count.
      exclude: Ids that must not be among the hits.
      filters: Values by name of the model's further inputs: allowed values of a facet, `min_…` and
        `max_…` of a range, `in_stock_only`, `max_per_…`. `tfmm inspect` lists them, and the model
        decides what they do.
      k: Number of hits; None for the model's own.
    """

    text: str = ""
    image: str | Path | bytes | None = None
    audio: str | Path | bytes | None = None
    history: Sequence[str] = ()
    exclude: Sequence[str] = ()
    filters: Mapping[str, Any] = field(default_factory=dict)
    k: int | None = None

    def values(self) -> dict[str, Any]:
        """What it holds, by input.

        Raises:
          ClientError: A photo or a sound cannot be read, or a filter is none.
        """
        for name in self.filters:
            if name in _PARTS or name in _CONTEXT:
                raise ClientError(f"filters: expected names of filters, received {name}")
        held: dict[str, Any] = dict(self.filters)
        if self.text.strip():
            held["text"] = self.text
        if self.image:
            held["image"] = photo(self.image)
        if self.audio:
            held["audio"] = sound(self.audio)
        for name, ids in (("history", self.history), ("exclude", self.exclude)):
            if ids:
                held[name] = ids
        if self.k is not None:
            held["k"] = self.k
        return held


@dataclass(frozen=True)
class InputSpec:
    """One input of a served signature.

    Attributes:
      dtype: NumPy's type of its values; object for strings.
      width: Values a row; 0 for a scalar, None where any number will do.
      default: What the server takes when it is not sent, [1] or [1, width], or None.
    """

    dtype: np.dtype[Any]
    width: int | None
    default: Array | None = field(compare=False)


def columns(rows: Sequence[Mapping[str, Any]], specs: Mapping[str, InputSpec]) -> dict[str, Array]:
    """Inputs [B] or [B, width] of a signature, from the values that each row gives.

    What a row does not give is the input's default. One row holds only the inputs that it gives;
    several hold all that have a default, since servers that merge calls want the same number of
    rows of every input.

    Raises:
      ClientError: There is no such input, or it wants other values.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    for name in names:
        if name not in specs:
            known = ", ".join(sorted(specs))
            raise ClientError(f"expected inputs among {known}, received {name}")
    if len(rows) > 1:
        names += [name for name in specs if name not in names and specs[name].default is not None]
    return {name: _column(name, [row.get(name) for row in rows], specs[name]) for name in names}


def _column(name: str, values: Sequence[Any], spec: InputSpec) -> Array:
    if spec.width == 0:
        flat = [_blank(spec) if value is None else _one(name, value, spec) for value in values]
        return _array(flat, spec)
    lists = [_several(name, value, spec) for value in values]
    width = spec.width or max(map(len, lists))
    return _array([_padded(name, one, width, spec) for one in lists], spec)


def _several(name: str, value: Any, spec: InputSpec) -> list[Any]:
    if value is None:
        return []
    alone = isinstance(value, str | bytes) or not hasattr(value, "__iter__")
    return [_one(name, each, spec) for each in ([value] if alone else value)]


def _padded(name: str, values: list[Any], width: int, spec: InputSpec) -> list[Any]:
    if len(values) > width and not is_of_history(name):
        raise ClientError(f"{name}: expected at most {width} values, received {len(values)}")
    return padded(name, values, width, _blank(spec))


def _blank(spec: InputSpec) -> Any:
    if spec.default is not None and spec.default.size:
        return spec.default.flat[0]
    return b"" if spec.dtype.hasobject else spec.dtype.type(0)


def _one(name: str, value: Any, spec: InputSpec) -> Any:
    """A value in a form that NumPy takes for the input's type without changing it."""
    match spec.dtype.kind:
        case "O" if isinstance(value, str | bytes):
            return _encoded(name, value)
        case "f" if isinstance(value, int | float | np.number):
            return value
        case "b" if isinstance(value, bool | np.bool_):
            return value
        case "i" | "u" if hasattr(value, "__index__") and not isinstance(value, bool):
            number, limits = operator.index(value), np.iinfo(spec.dtype)
            if limits.min <= number <= limits.max:
                return number
        case _:
            pass
    kinds = {"O": "text or bytes", "f": "a number", "b": "true or false"}
    expected = kinds.get(spec.dtype.kind, f"a whole number ({spec.dtype})")
    raise ClientError(f"{name}: expected {expected}, received {value!r:.{_SHOWN}}")


def _encoded(name: str, value: str | bytes) -> bytes:
    if isinstance(value, bytes):
        return value
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise ClientError(f"{name}: expected Unicode text, received {value!a:.{_SHOWN}}") from error


def _array(values: Sequence[Any], spec: InputSpec) -> Array:
    return np.array(values, dtype=spec.dtype)
