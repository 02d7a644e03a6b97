"""What a model's signatures and those who ask them agree on; no TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

SIGNATURE_OF: Mapping[str, str] = {
    "text": "search_text",
    "image": "search_image",
    "audio": "search_audio",
    "history": "recommend",
}
"""The signature that a model has for each modality that it reads of a query."""

PRODUCT_IDS_FILE, LOG_IDS_FILE = "product_ids.txt", "log_ids.txt"
"""Assets of a version: the ids of its catalogue in order, and those that its log knows."""

RATE_HZ = 16_000
"""Rate of the sounds that are stored and that towers hear."""


def is_of_history(name: str) -> bool:
    """Whether an input goes along a history, oldest first, so that its newest values count."""
    return name.startswith("history")


def padded(name: str, values: Sequence[Any], width: int, blank: Any) -> list[Any]:
    """One row of an input with several values a row, as wide as the signature wants it.

    Args:
      name: The input. `history` and its companions are padded on the left, and of too many values
        the newest are kept; all others are padded on the right.
      values: What the row gives; at most `width` where the input is none of a history.
      width: Values a row.
      blank: Stands for no value.
    """
    padding = [blank] * (width - len(values))
    return [*padding, *values[-width:]] if is_of_history(name) else [*values, *padding]


SMALL = "small"
"""The handle of tfmm's own networks, in recipes and in manifests."""
