"""A shop of words, exported as a user exports it but without a training, and tables of changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from tfmm import build
from tfmm.bundle import Bundle
from tfmm.catalogue import content_fingerprints, product_inputs, read_columns
from tfmm.config import Config, load_config
from tfmm.features.popularity import popularity_features
from tfmm.records.tfrecord import PreparedData
from tfmm.turnover import Former
from tfmm.workflows.export import export
from tfmm.workflows.prepare import prepare

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
Row = dict[str, Any]
WORDS = ("red", "green", "blue", "black", "shirt", "lamp", "mug", "chair", "boot", "bag")
SETTINGS = (
    'name="words"',
    'catalogue.text=["title","note"]',
    'catalogue.returned=["title","price","rank"]',
    'catalogue.facets=["category"]',
    "catalogue.history_length=3",
    "catalogue.exclude_length=2",
    "catalogue.facet_values=2",
    "catalogue.max_k=20",
    "text.vocabulary_size=100",
    "text.width=8",
    "text.ngram_buckets=64",
    "text.max_query_tokens=6",
    "text.max_product_tokens=12",
    "tower.dim=8",
    "tower.width=8",
    'tower.query=["text","history"]',
    'tower.product=["text","id","popularity"]',
    "prepare.shards=1",
    "prepare.max_reject_fraction=0.4",
)
LOGGED = {"p1": 3.0, "p4": 9.0, "gone": 2.0, "never": 0.0, "late": 12.0, "p7": 1.0}
"""The training log knows a product that the catalogue has not yet: `late`."""


def recipe(folder: Path, *more: str) -> Config:
    return load_config(None, (*SETTINGS, f"tower.hub_dir={folder / 'hub'}", *more))


def product(number: int, seed: int = 0, **other: Any) -> Row:
    """A product of random words, of one of three categories, some without a price."""
    random = np.random.default_rng([number, seed])
    row: Row = {
        "product_id": f"p{number}",
        "title": " ".join(random.choice(WORDS, 3)),
        "note": str(random.choice(WORDS)),
        "category": ("", "near", "far")[random.integers(3)],
        "price": None if random.random() < 0.2 else float(random.integers(1, 50)),
        "in_stock": bool(random.random() < 0.7),
        "rank": float(random.integers(100)),
    }
    return row | other


ROWS = [product(number) for number in range(30)]


def applied(rows: list[Row], changes: list[Row]) -> list[Row]:
    """What a shop's own table would be: changed in place, without the removed, new ones last."""
    made = {row["product_id"]: row for row in rows}
    for row in changes:
        if row.get("removed"):
            made.pop(row["product_id"])
        else:
            made[row["product_id"]] = made.get(row["product_id"], {}) | row
    return list(made.values())


def write_table(path: Path, rows: list[Row]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def prepared(folder: Path, config: Config, rows: list[Row]) -> Path:
    """A prepared dataset of these products."""
    write_table(folder / "tables" / "products.jsonl", rows)
    prepare(folder / "tables", folder / "data", config=config, progress=False)
    return folder / "data"


def trained(config: Config) -> build.Trained:
    """Towers as they start, of which every part says something, and a log."""
    vocabulary = [*SPECIAL, *WORDS]
    query, tower = build.make_towers(config, vocabulary, products=len(LOGGED))
    random = np.random.default_rng(1)
    for variable in (*tower.joint.variables, tower.ids.embeddings):
        variable.assign_add(0.3 * random.normal(size=variable.shape).astype(np.float32))
    events = np.repeat(np.arange(len(LOGGED)), [int(count) for count in LOGGED.values()])
    log = popularity_features(
        events,
        np.arange(len(events)) * 10**11,
        products=len(LOGGED),
        days=config.tower.popularity_days,
    )
    return build.Trained(config, vocabulary, query, tower, {}, LOGGED, log)


def publish(run: build.Trained, folder: Path, rows: list[Row]) -> Path:
    """Exports products with the real command's function; a minute."""
    data = prepared(folder, run.config, rows)
    with mock.patch.object(build, "load_run", return_value=run):
        return export(folder, data, saved_models=folder / "saved", progress=False)


def fresh(run: build.Trained, folder: Path, rows: list[Row]) -> dict[str, np.ndarray]:
    """What an export of these products would save of them, by the names of its variables."""
    from tfmm.index.choice import make_index
    from tfmm.retriever import Retriever

    data = PreparedData(prepared(folder, run.config, rows))
    columns = read_columns(run.config, data)
    ids = [one.decode() for one in columns["product_id"]]
    preprocessor = run.make_preprocessor(ids)
    raw = next(iter(product_inputs(run.config, data).batch(len(ids))))
    vectors = run.product_tower(preprocessor.product(raw)).numpy()
    made = Retriever(
        run.config,
        preprocessor=preprocessor,
        towers=(run.query_tower, run.product_tower),
        index=make_index(vectors, run.config.index),
        products=columns,
        popularity=run.popularity(ids),
    )
    variables = {f"columns/{name}": one for name, one in made.columns.items()}
    variables |= {"popular/order": made.popular.order, "popular/share": made.popular.share}
    variables |= {"rules/stock": made.rules.stock, "rules/numbers/0": made.rules.numbers[0]}
    variables |= {"rules/codes/0": made.rules.codes[0], "index/vectors": made.index.vectors}
    content = content_fingerprints({name: value.numpy() for name, value in raw.items()})
    return {name: one.numpy() for name, one in variables.items()} | {"content": content}


def same_as_fresh(run: build.Trained, version: Path, rows: list[Row], folder: Path) -> None:
    """Every variable that depends on the catalogue is that of an export of these products."""
    expected = fresh(run, folder, rows)
    bundle, former = Bundle(version), Former(version)
    np.testing.assert_array_equal(former.ledger.fingerprints, expected.pop("content"))
    for name, values in expected.items():
        found = bundle.array(name)
        if values.dtype.kind == "f":
            np.testing.assert_allclose(found, values, atol=1e-5, err_msg=name)
        else:
            np.testing.assert_array_equal(found, values, err_msg=name)
    assert former.ids == [row["product_id"] for row in rows]
