"""`tfmm search`: one query to an exported model, and its hits as a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from tfmm.artifacts import LoadedModel, load_model
from tfmm.config import CatalogueConfig, Config, config_from_dict
from tfmm.errors import TfmmError
from tfmm.records.media import normalise_sound
from tfmm.records.photo import normalise_photo
from tfmm.report_table import render

_NO_NUMBER = -1


@dataclass(frozen=True)
class Hit:
    """One product of an answer.

    Attributes:
      product_id: The product.
      score: Its score; larger is better.
      fields: The recipe's returned columns.
    """

    product_id: str
    score: float
    fields: Mapping[str, str | float]


@dataclass(frozen=True)
class Answer:
    """Hits, best first; `str(answer)` is a table."""

    hits: tuple[Hit, ...]

    def __str__(self) -> str:
        if not self.hits:
            return "no products"
        table = Table(box=SIMPLE_HEAD)
        for name in ("rank", "product_id", "score", *self.hits[0].fields):
            table.add_column(name, no_wrap=True)
        for rank, hit in enumerate(self.hits, start=1):
            shown = [_cell(value) for value in hit.fields.values()]
            table.add_row(str(rank), hit.product_id, f"{hit.score:.4f}", *shown)
        return render(table)


def search(
    saved_model: Path,
    *,
    text: str = "",
    image: Path | None = None,
    audio: Path | None = None,
    like: Sequence[str] = (),
    k: int = 10,
) -> Answer:
    """Asks an exported model once.

    One product in `like` and nothing else asks for what is similar to it; otherwise the products
    are the shopper's history, oldest first, beside the words, the photo and the sound.

    Args:
      saved_model: A version folder, or a model's folder (its newest version).
      text: Words.
      image: A photo.
      audio: A sound, in any format that `tfmm prepare` reads.
      like: Ids of products.
      k: Number of hits.

    Raises:
      TfmmError: There is nothing to ask, a file cannot be read, or the model has no use for what
        is asked.
    """
    model = load_model(saved_model)
    if "config" not in model.manifest:
        raise TfmmError(f"{saved_model}: expected a model that tfmm exported, found another one")
    config = config_from_dict(model.manifest["config"], where=f"{saved_model}: manifest")
    if not 1 <= k <= config.catalogue.max_k:
        raise TfmmError(f"-k: expected 1..{config.catalogue.max_k}, received {k}")
    asked = _asked(text, image, audio, config=config)
    is_similar = not asked and len(like) == 1
    if like and not is_similar:
        asked["history"] = list(like)
    if not is_similar:
        _check(asked, config)
    _refuse_unknown(model, like)
    if is_similar:
        outputs = model.signatures["similar"](product_id=[like[0]], k=[k])
        return _answer(outputs, config.catalogue)
    inputs = {name: [value] for name, value in asked.items()}
    return _answer(model.signatures["serving_default"](**inputs, k=[k]), config.catalogue)


def _refuse_unknown(model: LoadedModel, like: Sequence[str]) -> None:
    """Refuses ids that the model answers as it answers one that no product has."""
    if not like:
        return
    outputs = model.signatures["similar"](product_id=[*like, ""], k=[1] * (len(like) + 1))
    answers = [
        (str(product_id), float(score))
        for product_id, score in zip(
            outputs["product_id"][:, 0], outputs["score"][:, 0], strict=True
        )
    ]
    unknown = [one for one, answer in zip(like, answers, strict=False) if answer == answers[-1]]
    if unknown:
        raise TfmmError(
            f"--like: expected ids of products in {model.path}, received {', '.join(unknown)}"
        )


def _asked(text: str, image: Path | None, audio: Path | None, *, config: Config) -> dict[str, Any]:
    """The words, photo and sound that were given, in the form that the exported graph reads."""
    asked: dict[str, Any] = {"text": text} if text.strip() else {}
    if image is not None:
        pixels = config.prepare.max_image_pixels
        asked["image"] = _media(image, "--image", partial(normalise_photo, max_pixels=pixels))
    if audio is not None:
        seconds = config.prepare.max_audio_seconds
        asked["audio"] = _media(audio, "--audio", partial(normalise_sound, max_seconds=seconds))
    return asked


def _media(path: Path, option: str, normalise: Callable[[bytes], bytes]) -> bytes:
    try:
        return normalise(path.read_bytes())
    except OSError as error:
        raise TfmmError(f"{option}: expected a readable file, received {path}") from error
    except ValueError as error:
        raise TfmmError(f"{option} {path}: {error}") from error


def _check(asked: Mapping[str, Any], config: Config) -> None:
    if not asked:
        raise TfmmError("search: expected --text, --image, --audio or --like, received none")
    for modality in asked:
        if modality not in config.tower.query:
            reads = ", ".join(config.tower.query)
            raise TfmmError(f"search: expected a query of {reads}, received {modality}")


def _answer(outputs: Mapping[str, Any], catalogue: CatalogueConfig) -> Answer:
    columns = [name for name in catalogue.returned if name in outputs and name != "product_id"]
    ids = [_plain(item) for item in outputs["product_id"][0]]
    return Answer(
        tuple(
            Hit(
                str(product_id),
                float(outputs["score"][0][rank]),
                {name: _plain(outputs[name][0][rank]) for name in columns},
            )
            for rank, product_id in enumerate(ids)
            if product_id
        )
    )


def _plain(value: Any) -> str | float:
    if isinstance(value, bytes):
        return value.decode()
    return value if isinstance(value, str) else float(value)


def _cell(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return "" if value == _NO_NUMBER else f"{value:g}"
