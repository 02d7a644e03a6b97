"""`tfmm search --server`: one query to a served model, with the answer of `tfmm search`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfmm.client.client import Client
from tfmm.config import PrepareConfig
from tfmm.hits import Answer
from tfmm.question import Asked, answer, read_question


class _Served:
    """A model behind a server."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.where = client.address

    def reads(self) -> Sequence[str]:
        return self._client.reads()

    def ask(self, signature: str, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        return self._client.predict(signature, rows)


def ask(client: Client, asked: Asked) -> Answer:
    """Asks a served model once; the answer is that of `workflows.search.search`.

    Raises:
      TfmmError: There is nothing to ask, a file cannot be read, the model has no use for what is
        asked, or nobody answers.
    """
    question = read_question(PrepareConfig(), _sound, asked)
    return answer(_Served(client), question, k=asked.k)


def _sound(content: bytes, *, max_seconds: float) -> bytes:
    # As `tfmm search` converts it; the decoders are TensorFlow IO's, which takes seconds to load.
    from tfmm.records.media import normalise_sound  # noqa: PLC0415

    return normalise_sound(content, max_seconds=max_seconds)
