"""`tfmm search --server`: one query to a served model, with the answer of `tfmm search`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tfmm.client.client import Client
from tfmm.config import PrepareConfig
from tfmm.hits import Answer
from tfmm.question import Question, answer, read_media
from tfmm.records.photo import normalise_photo

_LIMITS = PrepareConfig()


class _Served:
    """A model behind a server."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.where = client.address

    def reads(self) -> Sequence[str]:
        return self._client.reads()

    def ask(self, signature: str, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        return self._client.predict(signature, rows)


def ask(
    client: Client,
    *,
    text: str = "",
    image: Path | None = None,
    audio: Path | None = None,
    like: Sequence[str] = (),
    k: int = 10,
) -> Answer:
    """Asks a served model once; arguments and answer are those of `workflows.search.search`.

    Raises:
      TfmmError: There is nothing to ask, a file cannot be read, the model has no use for what is
        asked, or nobody answers.
    """
    pixels = _LIMITS.max_image_pixels
    question = Question(
        text,
        read_media(image, "--image", partial(normalise_photo, max_pixels=pixels)),
        read_media(audio, "--audio", _sound),
        tuple(like),
        k,
    )
    return answer(_Served(client), question)


def _sound(content: bytes) -> bytes:
    # As `tfmm search` converts it; the decoders are TensorFlow IO's, which takes seconds to load.
    from tfmm.records.media import normalise_sound  # noqa: PLC0415

    return normalise_sound(content, max_seconds=_LIMITS.max_audio_seconds)
