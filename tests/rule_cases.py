"""Random catalogues and rules, and what NumPy says of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tfmm.config import CatalogueConfig

CATALOGUE = CatalogueConfig(
    returned=("title",), facets=("category", "brand"), ranges=("price",), facet_values=3
)
HIGHEST = float(np.finfo(np.float32).max)
NOTHING = {
    "category": [], "brand": [], "min_price": -HIGHEST, "max_price": HIGHEST,
    "in_stock_only": False, "max_per_category": 0, "max_per_brand": 0,
}  # fmt: skip


@dataclass(frozen=True)
class Shop:
    """Unit vectors [N, D] and columns [N]."""

    vectors: np.ndarray
    columns: dict[str, np.ndarray]


def shop(count: int, *, seed: int = 0, dim: int = 16) -> Shop:
    """Categories of very different size, brands, prices; some products lack each of them."""
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(count, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    sizes = [0.5, 0.3, 0.1, 0.05, 0.03, 0.01, 0.01]
    category = random.choice(7, size=count, p=sizes)
    names = np.array(["shoes", "鞋", "hats", "bags", "rare", "rarer", ""])
    price = random.uniform(1, 100, count).astype(np.float32)
    price[random.random(count) < 0.1] = np.nan
    brand = np.array([f"b{number}" if number else "" for number in random.integers(0, 12, count)])
    return Shop(
        vectors,
        {
            "product_id": np.array([f"p{number}".encode() for number in range(count)], object),
            "category": np.array([name.encode() for name in names[category]], object),
            "brand": np.array([name.encode() for name in brand], object),
            "price": price,
            "in_stock": (random.random(count) < 0.8).astype(np.int64),
        },
    )


def some_rules(random: np.random.Generator) -> dict[str, Any]:
    """One row's rules; each is there in about a third of the rows."""
    rules = dict(NOTHING)
    if random.random() < 0.4:
        among = ["shoes", "鞋", "hats", "bags", "rare", "rarer", "no such"]
        rules["category"] = list(random.choice(among, size=random.integers(1, 4), replace=False))
    if random.random() < 0.3:
        rules["brand"] = [f"b{number}" for number in random.integers(1, 12, 2)]
    if random.random() < 0.3:
        rules["min_price"] = float(random.uniform(0, 90))
    if random.random() < 0.3:
        rules["max_price"] = float(random.uniform(2, 100))
    rules["in_stock_only"] = bool(random.random() < 0.3)
    for name in ("category", "brand"):
        if random.random() < 0.3:
            rules[f"max_per_{name}"] = int(random.integers(1, 4))
    return rules


def inputs_of(rows: list[dict[str, Any]], width: int = 3) -> dict[str, Any]:
    """Rows of rules as the inputs of a signature."""
    made: dict[str, Any] = {}
    for name in NOTHING:
        values = [row[name] for row in rows]
        if name in CATALOGUE.facets:
            values = [[*value, *[""] * (width - len(value))] for value in values]
        made[name] = values
    return made


def expected(
    shop: Shop, scores: np.ndarray, rules: dict[str, Any], *, k: int, excluded: set[int]
) -> list[int]:
    """The best products that comply, going through all of them, best first."""
    found: list[int] = []
    counts: dict[tuple[str, bytes], int] = {}
    for product in np.argsort(-scores, kind="stable"):
        if len(found) == k:
            break
        one = {name: column[product] for name, column in shop.columns.items()}
        if int(product) in excluded or not complies(one, rules):
            continue
        values = [(name, one[name]) for name in CATALOGUE.facets if one[name]]
        full = [v for v in values if 0 < rules[f"max_per_{v[0]}"] <= counts.get(v, 0)]
        if full:
            continue
        for value in values:
            counts[value] = counts.get(value, 0) + 1
        found.append(int(product))
    return found


def complies(one: dict[str, Any], rules: dict[str, Any]) -> bool:
    """Whether a product complies with all rules but the limits."""
    for name in CATALOGUE.facets:
        if rules[name] and one[name].decode() not in rules[name]:
            return False
    bounded = rules["min_price"] > -HIGHEST or rules["max_price"] < HIGHEST
    if bounded and not rules["min_price"] <= one["price"] <= rules["max_price"]:
        return False
    return bool(one["in_stock"]) or not rules["in_stock_only"]
