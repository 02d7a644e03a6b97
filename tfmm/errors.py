"""Errors that a user can act on."""

from __future__ import annotations

import re

_SENTENCE = re.compile(r"assertion failed: \[(.*?)\]\s*(?:\n|$)", re.DOTALL)


class TfmmError(Exception):
    """Something that the user gave is not what was expected.

    The message is one sentence: what was expected, what was received, and where. The command
    line prints it as one line and exits with status 2.
    """


class RecordError(TfmmError):
    """One row of a dataset cannot be used.

    Attributes:
      field: The column at fault.
      reason: What was expected and what came.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class WorkerLostError(TfmmError):
    """Another worker of a training has ended or cannot be reached; all must start again."""


class RequirementMissedError(TfmmError):
    """A measured figure is below what `--require` asked for; the command exits with status 1."""


def sentence_of(message: str) -> str:
    """The sentence of a failed assertion in a graph, or the first line of another error."""
    found = _SENTENCE.search(message)
    if found:
        return found.group(1).replace("] [", " ")
    lines = [line for line in message.splitlines() if line and not line.startswith("Graph exec")]
    return lines[0] if lines else message
