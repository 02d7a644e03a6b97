"""`tfmm search`: one query to an exported model, and its hits as a table."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfmm.artifacts import LoadedModel, load_model
from tfmm.config import Config, config_from_dict
from tfmm.errors import TfmmError
from tfmm.hits import Answer
from tfmm.question import Asked, answer, read_question
from tfmm.records.media import normalise_sound


class _Loaded:
    """A model in this process."""

    def __init__(self, model: LoadedModel, config: Config) -> None:
        self._model, self._config = model, config
        self.where = str(model.path)

    def reads(self) -> Sequence[str]:
        return self._config.tower.query

    def ask(self, signature: str, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        inputs = {name: [row[name] for row in rows] for name in rows[0]}
        return self._model.signatures[signature](**inputs)


def search(saved_model: Path, asked: Asked) -> Answer:
    """Asks an exported model once.

    One product in `asked.like` and nothing else asks for what is similar to it; otherwise the
    products are the shopper's history, oldest first, beside the words, the photo and the sound.

    Args:
      saved_model: A version folder, or a model's folder (its newest version).
      asked: The question.

    Raises:
      TfmmError: There is nothing to ask, a file cannot be read, or the model has no use for what
        is asked.
    """
    model = load_model(saved_model)
    if "config" not in model.manifest:
        raise TfmmError(f"{saved_model}: expected a model that tfmm exported, found another one")
    config = config_from_dict(model.manifest["config"], where=f"{saved_model}: manifest")
    if not 1 <= asked.k <= config.catalogue.max_k:
        raise TfmmError(f"-k: expected 1..{config.catalogue.max_k}, received {asked.k}")
    question = read_question(config.prepare, normalise_sound, asked)
    with _unoptimised():
        return answer(_Loaded(model, config), question, k=asked.k)


@contextlib.contextmanager
def _unoptimised() -> Iterator[None]:
    """Functions run as they were saved: optimising one takes longer than many a query."""
    option = "disable_meta_optimizer"
    before = bool(tf.config.optimizer.get_experimental_options().get(option))
    tf.config.optimizer.set_experimental_options({option: True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({option: before})
