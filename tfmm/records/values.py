"""Single values of a source row: what each may look like, and what it becomes.

Every function takes a value that is present (see `is_absent`) and raises ValueError with one
sentence of what was expected and received. Loads without TensorFlow.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, NamedTuple

EVENT_TYPES = ("impression", "click", "cart", "purchase")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = datetime(2200, 1, 1, tzinfo=UTC)
_EPOCH_NUMBER = re.compile(r"\d+(\.\d*)?")
_FLAGS = {"true": 1, "1": 1, "yes": 1, "false": 0, "0": 0, "no": 0}
_SHOWN_CHARACTERS = 40
_INT64_MAX = 2**63 - 1
_FLOAT32_MAX = 3.4028234e38


@dataclass(frozen=True)
class Unreadable:
    """Stands for a cell that the file holds but that is no value; the reason says why."""

    reason: str


class Moment(NamedTuple):
    """An instant: microseconds since 1970 UTC, and the shopper's hour of the day or -1."""

    microseconds: int
    local_hour: int


def is_absent(value: Any) -> bool:
    """Whether a cell is empty: null, "", an empty list, or the NaN that stands for null."""
    if value is None or (isinstance(value, str | bytes | list) and not value):
        return True
    return isinstance(value, float) and math.isnan(value)


def shown(value: Any) -> str:
    """A value as a message shows it, cut short."""
    text = f"{len(value)} bytes" if isinstance(value, bytes) else repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def text(value: Any) -> str:
    """Any Unicode text; numbers and dates as they are written; NUL becomes a space.

    A whole number is written without a fraction, so that 42 and 42.0 are the same text.
    """
    if not isinstance(value, str):
        value = _as_text(value)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("expected Unicode text, received half a surrogate pair") from None
    return str(value.replace("\0", " "))


def _as_text(value: Any) -> str:
    match value:
        case Unreadable():
            raise ValueError(value.reason)
        case bool():
            return "true" if value else "false"
        case float() if value.is_integer():
            return str(int(value))
        case int() | float() | Decimal():
            return str(value)
        case date():
            return value.isoformat()
        case bytes():
            try:
                return value.decode()
            except UnicodeDecodeError:
                raise ValueError("expected UTF-8 text, received other bytes") from None
        case _:
            raise ValueError(f"expected text, received {shown(value)}")


def identifier(value: Any) -> str:
    """An id: text that is not blank and has no NUL; a whole number is its digits."""
    if isinstance(value, bool | date) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError(f"expected an id, received {shown(value)}")
    if (isinstance(value, str) and "\0" in value) or (isinstance(value, bytes) and b"\0" in value):
        raise ValueError("expected an id without NUL, received one with it")
    name = text(value)
    if not name.strip():
        raise ValueError("expected an id, received only spaces")
    return name


def number(value: Any) -> float:
    """A finite number that float32 can hold."""
    if isinstance(value, Unreadable):
        raise ValueError(value.reason)
    try:
        parsed = float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"expected a number, received {shown(value)}") from None
    if not abs(parsed) <= _FLOAT32_MAX:
        raise ValueError(f"expected a finite number, received {shown(value)}")
    return parsed


def amount(value: Any) -> float:
    """A finite number of at least 0: a price, a grade, a time spent."""
    parsed = number(value)
    if parsed < 0:
        raise ValueError(f"expected at least 0, received {shown(value)}")
    return parsed


def flag(value: Any) -> int:
    """1 or 0 of true/false, yes/no, 1/0 in any case."""
    known = _FLAGS.get(text(value).strip().lower())
    if known is None:
        raise ValueError(f"expected true/false, yes/no or 1/0, received {shown(value)}")
    return known


def count(value: Any) -> int:
    """A whole number of at least 0."""
    parsed = amount(value)
    if not parsed.is_integer() or parsed > _INT64_MAX // 2:
        raise ValueError(f"expected a whole number, received {shown(value)}")
    return int(parsed)


def hour(value: Any) -> int:
    """An hour of the day, 0..23."""
    parsed = count(value)
    if parsed > 23:
        raise ValueError(f"expected an hour of 0..23, received {shown(value)}")
    return parsed


def event_type(value: Any) -> str:
    """One of `EVENT_TYPES`."""
    name = text(value)
    if name not in EVENT_TYPES:
        raise ValueError(f"expected one of {', '.join(EVENT_TYPES)}, received {shown(value)}")
    return name


def moment(value: Any) -> Moment:
    """An instant.

    Accepted are ISO 8601 with or without a zone (without one it is UTC), dates (midnight UTC),
    Arrow timestamps, and numbers: seconds, milliseconds, microseconds or nanoseconds since 1970,
    told apart by their size (below 1e11 seconds, below 1e14 milliseconds, below 1e17 microseconds),
    except that eight digits which make a date are YYYYMMDD.

    The local hour is known where the zone says more than UTC: an offset such as +08:00, or a named
    zone. "Z", "+00:00", " UTC" and Arrow's UTC mark an instant and not where the shopper was; a log
    that knows better says so in a column `local_hour`.
    """
    when = _instant(value)
    if not _EPOCH <= when < _LATEST:
        raise ValueError(f"expected a time from 1970 to 2199, received {shown(value)}")
    local_hour = -1 if _is_utc(when) else when.hour
    return Moment((when - _EPOCH) // timedelta(microseconds=1), local_hour)


def _is_utc(when: datetime) -> bool:
    fixed_at_zero = isinstance(when.tzinfo, timezone) and not when.utcoffset()
    return fixed_at_zero or str(when.tzinfo) in ("UTC", "Etc/UTC")


def _instant(value: Any) -> datetime:
    match value:
        case Unreadable():
            raise ValueError(value.reason)
        case datetime():
            return value if value.tzinfo else value.replace(tzinfo=UTC)
        case date():
            return datetime(value.year, value.month, value.day, tzinfo=UTC)
        case bool():
            raise ValueError(f"expected a time, received {value}")
        case int() | float() | Decimal():
            return _of_number(value, str(value))
        case str() if _EPOCH_NUMBER.fullmatch(value.strip()):
            return _of_number(Decimal(value.strip()), value.strip())
        case str():
            return _of_iso(value.strip())
        case _:
            raise ValueError(f"expected a time, received {shown(value)}")


def _of_number(value: int | float | Decimal, digits: str) -> datetime:
    if len(digits) == 8 and digits.isdigit() and "1970" <= digits[:4] < "2200":
        try:
            return datetime.strptime(digits, "%Y%m%d").replace(tzinfo=UTC)
        except ValueError:
            pass
    units = ((1e11, 1_000_000), (1e14, 1_000), (1e17, 1))
    scale = next((scale for bound, scale in units if value < bound), None)
    exact = Decimal(str(value))
    try:
        microseconds = int(exact * scale if scale else exact / 1000)
        return _EPOCH + timedelta(microseconds=microseconds)
    except (OverflowError, ValueError, ArithmeticError):
        raise ValueError(f"expected a time from 1970 to 2199, received {digits}") from None


def _of_iso(value: str) -> datetime:
    try:
        when = datetime.fromisoformat(value.removesuffix(" UTC"))
    except ValueError:
        raise ValueError(
            f"expected an ISO 8601 time or seconds since 1970, received {shown(value)}"
        ) from None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def sequence(value: Any, *, split: bool) -> list[Any]:
    """The items of a list, without empty ones.

    Text is a JSON list where it starts with "[", the only form that CSV can hold a list of any
    texts in; else items between "|" when `split`, or one item.
    """
    if isinstance(value, str):
        value = _parts(value, split=split)
    elif not isinstance(value, list | tuple):
        value = [value]
    return [item for item in value if not is_absent(item)]


def _parts(value: str, *, split: bool) -> list[Any]:
    if value.lstrip().startswith("["):
        try:
            parsed = json.loads(value)
        except ValueError:
            parsed = None
        if isinstance(parsed, list):
            return parsed
    return value.split("|") if split else [value]


def media_content(value: Any) -> bytes | str:
    """The bytes of a photo, sound or video, or its path; `{"b64": ...}` and structs of either."""
    match value:
        case Unreadable():
            raise ValueError(value.reason)
        case bytes():
            return value
        case str() if "\0" in value:
            raise ValueError("expected a path without NUL, received one with it")
        case str() if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+:", value):
            raise ValueError(f"expected bytes or a path in the dataset, received {shown(value)}")
        case str():
            return value
        case {"b64": str(encoded)}:
            try:
                return base64.b64decode(encoded, validate=True)
            except binascii.Error:
                raise ValueError("expected base64, received other text") from None
        case {"bytes": bytes(content)}:
            return content
        case {"path": str(path)}:
            return path
        case _:
            raise ValueError(f"expected bytes or a path in the dataset, received {shown(value)}")
