"""JSON as RapidJSON reads and writes it: NaN and Infinity as words, its texts, its line breaks."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from tfmm.serving.status import invalid

_INDENT = "    "
_LONGEST_INTEGER = 19
_LONGEST_QUOTE = 4096
_LONGEST_LOOK = 1 << 16
_TEXTS = {
    "Expecting property name enclosed in double quotes": "Missing a name for object member.",
    "Illegal trailing comma before end of object": "Missing a name for object member.",
    "Expecting ':' delimiter": "Missing a colon after a name of object member.",
    "Unterminated string starting at": "Missing a closing quotation mark in string.",
    "Invalid control character at": "Invalid encoding in string.",
    "Invalid \\escape": "Invalid escape character in string.",
    "Invalid \\uXXXX escape": "Incorrect hex digit after \\u escape in string.",
    "Extra data": "The document root must not be followed by other values.",
}


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object of a request.

    Raises:
      ServingError: It is not JSON, or not an object.
    """
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    text = body.decode("utf-8", "surrogateescape")
    try:
        value = json.loads(text, parse_int=_integer, parse_float=_float)
    except json.JSONDecodeError as error:
        what = _TEXTS.get(error.msg) or _delimiter(error.msg, _before(text, error.pos))
        raise invalid(f"JSON Parse error: {what} at offset: {error.pos}") from error
    except OverflowError as error:
        text = "Number too big to be stored in double."
        raise invalid(f"JSON Parse error: {text} at offset: 0") from error
    except RecursionError as error:
        raise invalid("JSON Parse error: Nested too deeply. at offset: 0") from error
    if not isinstance(value, dict):
        raise invalid(f"JSON Value: {to_text(value)} Is not object")
    return value


def _integer(text: str) -> int | float:
    return int(text) if len(text) <= _LONGEST_INTEGER + 1 else _float(text)


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise OverflowError(text)
    return value


def _before(text: str, position: int) -> str:
    """What stands before a place, but no more than can be looked through at once."""
    return text[max(0, position - _LONGEST_LOOK) : position]


def _delimiter(message: str, before: str) -> str:
    if message != "Expecting ',' delimiter":
        return "Invalid value."
    depth = 0
    for character in reversed(before):
        depth += (character in "]}") - (character in "[{")
        if depth < 0:
            in_array = character == "["
            break
    else:
        in_array = False
    if in_array:
        return "Missing a comma or ] after an array element."
    return "Missing a comma or } after an object member."


def to_bytes(text: str) -> bytes:
    """The bytes that stood in the request for a parsed string.

    Raises:
      ServingError: Half of a surrogate pair was escaped in it.
    """
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        what = "The surrogate pair in string is invalid."
        raise invalid(f"JSON Parse error: {what} at offset: 0") from error


def printable(text: str) -> str:
    """A parsed string with a question mark for each byte that was no UTF-8."""
    return text.encode("utf-8", "replace").decode("utf-8")


def kind_of(value: Any) -> str:
    """RapidJSON's name of a value's type."""
    match value:
        case None:
            return "Null"
        case bool():
            return str(value)
        case int() | float():
            return "Number"
        case str():
            return "String"
        case list():
            return "Array"
        case _:
            return "Object"


def decimal(value: float, *, double: bool) -> str:
    """A float as the real server writes it: six digits if they are enough, else all of them."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "-Infinity" if value < 0 else "Infinity"
    text = f"{value:g}"
    back = float(text) if double else float(np.float32(text))
    if back != value:
        text = f"{value:.17g}" if double else f"{value:.9g}"
    return text if "." in text or "e" in text else f"{text}.0"


def to_text(value: Any) -> str:
    """A parsed value as JSON again, for an error's text, which is cut where it gets long.

    The lines of a megabyte of nested lists would be indented to gigabytes.
    """
    writer = _Quote()
    try:
        writer.value(value)
    except _FullError:
        return writer.text()[:_LONGEST_QUOTE] + "...TRUNCATED"
    return writer.text()


class Writer:
    """RapidJSON's PrettyWriter with four spaces.

    Attributes:
      one_line: Whether what is written from now on stands in one line.
    """

    def __init__(self) -> None:
        self.one_line = False
        self._parts: list[str] = []
        # For each open container: whether it is an array, and the number of its values and names.
        self._open: list[tuple[bool, int]] = []

    def raw(self, text: str) -> None:
        """A number or word, as it is."""
        self._prefix()
        self._parts.append(text)

    def string(self, text: str) -> None:
        """A string or a name."""
        self.raw(json.dumps(text, ensure_ascii=False))

    def start(self, bracket: str) -> None:
        """Opens an array (`[`) or an object (`{`)."""
        self.raw(bracket)
        self._open.append((bracket == "[", 0))

    def end(self) -> None:
        """Closes what was opened last."""
        array, count = self._open.pop()
        if count and not (array and self.one_line):
            self._break()
        self._parts.append("]" if array else "}")

    def value(self, value: Any) -> None:
        """A parsed value with all that is in it."""
        match value:
            case None:
                self.raw("null")
            case bool():
                self.raw("true" if value else "false")
            case int():
                self.raw(str(value))
            case float():
                with np.errstate(over="ignore"):
                    double = float(np.float32(value)) != value
                self.raw(decimal(value, double=double))
            case str():
                self.string(value)
            case list():
                self.start("[")
                for item in value:
                    self.value(item)
                self.end()
            case _:
                self.start("{")
                for name, item in value.items():
                    self.string(name)
                    self.value(item)
                self.end()

    def text(self) -> str:
        """What has been written."""
        return "".join(self._parts)

    def _prefix(self) -> None:
        if not self._open:
            return
        array, count = self._open[-1]
        self._open[-1] = (array, count + 1)
        if not array and count % 2:
            self._parts.append(": ")
            return
        if count:
            self._parts.append(", " if array and self.one_line else ",")
        if not (array and self.one_line):
            self._break()

    def _break(self) -> None:
        self._parts.append("\n" + _INDENT * len(self._open))


class _FullError(Exception):
    pass


class _Quote(Writer):
    """Stops when it has written enough for an error's text."""

    def __init__(self) -> None:
        super().__init__()
        self._counted = self._length = 0

    def raw(self, text: str) -> None:
        super().raw(text)
        self._length += sum(len(part) for part in self._parts[self._counted :])
        self._counted = len(self._parts)
        if self._length > _LONGEST_QUOTE:
            raise _FullError
