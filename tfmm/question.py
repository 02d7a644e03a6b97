"""One question to a model, wherever it is: as an exported folder, or behind a server."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from tfmm.config import PrepareConfig
from tfmm.errors import TfmmError
from tfmm.hits import Answer, hits_of
from tfmm.records.photo import normalise_photo


class Source(Protocol):
    """A model that can be asked."""

    @property
    def where(self) -> str:
        """Its name in messages."""

    def reads(self) -> Sequence[str]:
        """The modalities that it reads of a query."""

    def ask(self, signature: str, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """The outputs [B, K] of a signature for rows of inputs."""


@dataclass(frozen=True)
class Asked:
    """What a person asks, as it was given.

    Attributes:
      text: Words.
      image: A photo.
      audio: A sound, in any format that `tfmm prepare` reads.
      like: Ids of products.
      filters: Rules that hits comply with, as `read_filters` takes them.
      k: Number of hits.
    """

    text: str = ""
    image: Path | None = None
    audio: Path | None = None
    like: Sequence[str] = ()
    filters: Sequence[str] = ()
    k: int = 10


@dataclass(frozen=True)
class Question:
    """What a person asks, read and converted.

    Attributes:
      text: Words.
      image: A photo's bytes; none is empty.
      audio: A sound's bytes; none is empty.
      like: Ids of products.
      filters: Values by name of the model's inputs for rules.
    """

    text: str
    image: bytes
    audio: bytes
    like: tuple[str, ...]
    filters: Mapping[str, Any] = field(default_factory=dict)

    def held(self) -> dict[str, Any]:
        """The words, the photo and the sound that there are, by input."""
        given = {"text": self.text.strip() and self.text, "image": self.image, "audio": self.audio}
        return {name: value for name, value in given.items() if value}


def answer(source: Source, question: Question, *, k: int) -> Answer:
    """Asks a model once, for k hits.

    One product in `like` and nothing else asks for what is similar to it; otherwise the products
    are the shopper's history, oldest first, beside the words, the photo and the sound.

    Raises:
      TfmmError: There is nothing to ask, or the model has no use for what is asked.
    """
    asked, like = question.held(), question.like
    is_similar = not asked and len(like) == 1
    if like and not is_similar:
        asked["history"] = list(like)
    if not is_similar:
        _check(asked, source.reads())
    _refuse_unknown(source, like)
    if is_similar:
        row = {"product_id": like[0], "k": k} | dict(question.filters)
        outputs = source.ask("similar", [row])
    else:
        outputs = source.ask("serving_default", [asked | {"k": k} | dict(question.filters)])
    return Answer(tuple(hits_of(outputs, 0)))


def read_question(
    limits: PrepareConfig, normalise_sound: Callable[..., bytes], asked: Asked
) -> Question:
    """What a person asks, with the photo and the sound in the form that models read.

    Args:
      limits: How large they may be.
      normalise_sound: `records.media.normalise_sound`, which is handed in as it needs TensorFlow.
      asked: What was given.

    Raises:
      TfmmError: A file cannot be read or converted, or a filter is none.
    """
    as_photo = partial(normalise_photo, max_pixels=limits.max_image_pixels)
    as_sound = partial(normalise_sound, max_seconds=limits.max_audio_seconds)
    photo = _read(asked.image, "--image", as_photo)
    sound = _read(asked.audio, "--audio", as_sound)
    return Question(asked.text, photo, sound, tuple(asked.like), read_filters(asked.filters))


def read_filters(given: Sequence[str]) -> dict[str, Any]:
    """Rules as people write them.

    "category=shoes", again for another value; "max_price=30"; "in_stock_only=true";
    "max_per_brand=1".

    Raises:
      TfmmError: One is not of this form, or its value is not of the kind that its name wants.
    """
    made: dict[str, Any] = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals or not name.isidentifier():
            raise TfmmError(f"--filter: expected NAME=VALUE, received {one}")
        if name == "in_stock_only":
            made[name] = _of_kind(one, "true or false", {"true": True, "false": False}.get, value)
        elif name.startswith("max_per_"):
            made[name] = _of_kind(one, "a whole number", int, value)
        elif name.startswith(("min_", "max_")):
            made[name] = _of_kind(one, "a number", float, value)
        else:
            made.setdefault(name, []).append(value)
    return made


def _of_kind(one: str, expected: str, convert: Callable[[str], Any], value: str) -> Any:
    try:
        made = convert(value)
    except ValueError:
        made = None
    if made is None:
        raise TfmmError(f"--filter: expected {expected}, received {one}")
    return made


def _read(path: Path | None, option: str, normalise: Callable[[bytes], bytes]) -> bytes:
    """A converted file, of which messages name the option; b"" for no file."""
    if path is None:
        return b""
    try:
        return normalise(path.read_bytes())
    except OSError as error:
        raise TfmmError(f"{option}: expected a readable file, received {path}") from error
    except ValueError as error:
        raise TfmmError(f"{option} {path}: {error}") from error


def _check(asked: Mapping[str, Any], reads: Sequence[str]) -> None:
    if not asked:
        raise TfmmError("search: expected --text, --image, --audio or --like, received none")
    for modality in asked:
        if modality not in reads:
            raise TfmmError(f"search: expected a query of {', '.join(reads)}, received {modality}")


def _refuse_unknown(source: Source, like: Sequence[str]) -> None:
    """Refuses ids that the model answers as it answers one that no product has."""
    if not like:
        return
    outputs = source.ask("similar", [{"product_id": one, "k": 1} for one in (*like, "")])
    answers = [
        (product_ids[0], float(scores[0]))
        for product_ids, scores in zip(outputs["product_id"], outputs["score"], strict=True)
    ]
    unknown = [one for one, found in zip(like, answers, strict=False) if found == answers[-1]]
    if unknown:
        raise TfmmError(
            f"--like: expected ids of products in {source.where}, received {', '.join(unknown)}"
        )
