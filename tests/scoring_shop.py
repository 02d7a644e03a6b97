"""A published model whose answers one can foresee, and inputs for it to score."""

from __future__ import annotations

from pathlib import Path

import fake_parts

from tfmm import artifacts
from tfmm.config import config_to_dict


def publish(
    model: Path, count: int = 40, *, index: str = "exact", settings: tuple[str, ...] = ()
) -> Path:
    """Writes the next version of a model of products p0, p1, ...; returns its folder."""
    made = fake_parts.retriever(count, index=index, settings=settings)
    with artifacts.staging(model) as staged:
        made.save(staged)
        manifest = {"config": config_to_dict(fake_parts.config(*settings))}
        artifacts.write_manifest(staged, manifest)
        return artifacts.publish(staged)


def queries(count: int) -> list[dict[str, object]]:
    """Queries of words, of which the eighth wants more hits than there may be."""
    rows = [{"query_id": f"q{n}", "text": f"word {n}", "k": 1 + n % 20} for n in range(count)]
    rows[7]["k"] = 99
    return rows


def events(count: int, *, shoppers: int = 90, products: int = 40) -> list[dict[str, object]]:
    """A log as a shop has it."""
    kinds = ("click", "purchase", "impression", "cart")
    return [
        {
            "timestamp": f"2026-01-{1 + number * 28 // count:02d}T{number % 24:02d}:00:00",
            "event_type": kinds[number * 7 % 11 % 4],
            "product_id": f"p{number * 13 % products}",
            "user_id": f"u{number * number % shoppers}",
        }
        for number in range(count)
    ]
