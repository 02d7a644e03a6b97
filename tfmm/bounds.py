"""Which values the numbers of a recipe may have."""

from __future__ import annotations

import operator
from typing import Any

from tfmm.errors import TfmmError

_BOUNDS: tuple[tuple[str, float, float], ...] = (
    ("catalogue.history_length", 1, 1024),
    ("catalogue.exclude_length", 1, 65_536),
    ("catalogue.facet_values", 1, 1024),
    ("catalogue.max_k", 1, 100_000),
    ("prepare.shards", 1, 100_000),
    ("prepare.max_reject_fraction", 0, 1),
    ("text.vocabulary_size", 100, 1_000_000),
    ("tower.dim", 2, 4096),
    ("tower.id_dropout", 0, 0.99),
    ("tower.popularity_dropout", 0, 0.99),
    ("tower.late.text", 0, 100),
    ("tower.late.image", 0, 100),
    ("tower.late.audio", 0, 100),
    ("tower.late.history", 0, 100),
    ("affinity.text_width", 0, 4096),
    ("affinity.image_width", 0, 4096),
    ("affinity.id_width", 0, 4096),
    ("affinity.length_power", 0, 1),
    ("affinity.epochs", 0.01, 1000),
    ("affinity.batch_size", 2, 1_000_000),
    ("affinity.candidates", 2, 10_000_000),
    ("affinity.learning_rate", 1e-9, 1),
    ("affinity.id_penalty", 0, 100),
    ("affinity.history_dropout", 0, 0.99),
    ("affinity.new_share", 0, 0.99),
    ("affinity.new_boost", -8, 8),
    ("history.layers", 1, 32),
    ("history.heads", 1, 64),
    ("history.dropout", 0, 0.9),
    ("history.facts_dropout", 0, 0.99),
    ("train.batch_size", 2, 1_000_000),
    ("train.unimodal", 0, 100),
    ("train.symmetric", 0, 100),
    ("train.purchase_task", 0, 100),
    ("train.uniform_negatives", 0, 1_000_000),
    ("train.hard_negatives", 0, 16),
    ("train.hard_negative_weight", 0.01, 100),
    ("train.other_positives", 0, 1024),
    ("train.next_items", 0, 1_000_000),
    ("train.dwell_seconds", 0, 1_000_000),
    ("train.repeat_cap", 0, 1_000_000),
    ("train.user_cap", 0, 1_000_000),
    ("train.max_position_weight", 1, 1000),
    ("train.catalogue_share", 0, 1),
    ("train.product_photo_share", 0, 1),
    ("train.boost.text", 0.01, 100),
    ("train.boost.image", 0.01, 100),
    ("train.boost.audio", 0.01, 100),
    ("train.temperature", 1e-3, 10),
    ("train.margin", 0, 2),
    ("train.decay_share", 0.01, 1),
    ("index.recall_target", 0.5, 0.999),
    ("index.leaves", 0, 1_000_000),
    ("index.leaves_to_search", 0, 1_000_000),
    ("index.reorder", 0, 1_000_000),
    ("index.dimensions_per_block", 0, 64),
    ("split.validation_fraction", 0, 0.9),
    ("split.test_fraction", 0, 0.9),
)


def check_bounds(config: Any, where: str) -> None:
    """Checks every number of a recipe that has bounds of its own.

    Raises:
      TfmmError: One is out of them.
    """
    for key, low, high in _BOUNDS:
        check_value(key, config, where, (low, high))


def check_value(key: str, config: Any, where: str, bounds: tuple[float, float]) -> None:
    """Checks the number at `a.b` of a recipe.

    Raises:
      TfmmError: It is out of its bounds.
    """
    value, (low, high) = operator.attrgetter(key)(config), bounds
    if not low <= value <= high:
        raise TfmmError(f"{where}: {key}: expected {low}..{high}, received {value}")


def check_loss(config: Any, where: str) -> None:
    """Refuses what only a softmax can do, where the recipe chose another loss."""
    train = config.train
    for name in ("hard_negatives", "next_items"):
        if train.loss != "softmax" and getattr(train, name):
            raise TfmmError(
                f'{where}: train.{name}: expected 0 with train.loss = "{train.loss}",'
                f" received {getattr(train, name)}"
            )


def check_index(index: Any, where: str) -> None:
    """Refuses a storage that only the exact index has, where another may be chosen."""
    if index.storage != "float32" and index.kind != "exact":
        raise TfmmError(
            f'{where}: index.storage: expected "float32" with index.kind = "{index.kind}",'
            f' received "{index.storage}"'
        )
