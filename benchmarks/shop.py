"""A published model of words with drawn vectors, for benchmarks of what surrounds a model.

The towers are small and not trained, which changes nothing of what they cost.
"""

from __future__ import annotations

import tfmm  # isort: skip # noqa: F401 - selects legacy Keras before TensorFlow is imported

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.index.vectors import centres, clustered
from tfmm import artifacts, build
from tfmm.config import Config, config_to_dict, load_config
from tfmm.deployment import warmup_requests, write_deployment
from tfmm.index.choice import AnyIndex, make_index, tuned_index
from tfmm.ledger import Ledger, write_log
from tfmm.retriever import Retriever

SETTINGS = (
    'name="bench"',
    'catalogue.text=["title"]',
    'catalogue.returned=["title","price"]',
    'catalogue.facets=["category"]',
    "text.vocabulary_size=200",
    'tower.query=["text","history"]',
    'tower.product=["text"]',
)
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [f"word{number}" for number in range(100)]


def titles(random: np.random.Generator, count: int) -> list[str]:
    """Three words each."""
    drawn = random.integers(len(WORDS), size=(count, 3))
    return [" ".join(WORDS[word] for word in row) for row in drawn.tolist()]


def drawn_vectors(
    args: argparse.Namespace, random: np.random.Generator, width: int, more: int = 0
) -> Any:
    """Clustered unit vectors [N + more, D], as `benchmarks.index` draws them."""
    around = centres(random, args.clusters, width)
    return clustered(random, around, count=args.products + more, spread=args.spread)


def add_shop_arguments(parser: argparse.ArgumentParser, products: int) -> None:
    """What `publish` reads of the command line."""
    parser.add_argument("--products", type=int, default=products)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--clusters", type=int, default=1_000)
    parser.add_argument("--spread", type=float, default=0.8)
    parser.add_argument("--seed", type=int, default=1)


def publish(
    args: argparse.Namespace,
    folder: Path,
    kind: str,
    settings: tuple[str, ...] = (),
    *,
    held: int = 0,
) -> Path:
    """The first version of a model, as export would leave it, in a folder of models.

    Args:
      args: What `add_shop_arguments` reads.
      folder: The folder.
      kind: The index, and the model's name.
      settings: More of the recipe.
      held: Queries that the index is tuned on; 0 to leave it as it is.
    """
    more = (f"tower.dim={args.dim}", f"tower.hub_dir={folder / 'hub'}", f'index.kind="{kind}"')
    config: Config = load_config(None, (*SETTINGS, *more, *settings))
    random = np.random.default_rng(args.seed)
    ids, vocabulary = [f"p{n:08}" for n in range(args.products)], [*SPECIAL, *WORDS]
    towers = build.make_towers(config, vocabulary, products=args.products)
    index, facts = _index(drawn_vectors(args, random, args.dim, held), args.products, config)
    columns = _columns(ids, random)
    popularity = random.random(args.products, np.float32)
    made = Retriever(
        config,
        preprocessor=build.make_preprocessor(config, vocabulary, ids),
        towers=towers,
        index=index,
        products=columns,
        popularity=popularity,
    )
    with artifacts.staging(folder / kind) as staged:
        made.save(staged)
        Ledger(np.zeros(args.products, np.uint64), popularity).write(staged)
        write_log(staged, {})
        specs = artifacts.signature_specs(staged)
        write_deployment(staged, "bench", warmup_requests(specs, product_id=ids[0], text="word1"))
        manifest = {
            "name": "bench",
            "config": config_to_dict(config),
            "tower_fingerprint": "bench",
            "catalogue": {"fingerprint": "bench", "products": args.products},
            "index": facts,
        }
        artifacts.write_manifest(staged, manifest)
        index.release()
        return artifacts.publish(staged)


def _index(drawn: Any, products: int, config: Config) -> tuple[AnyIndex, dict[str, Any]]:
    """An index of products, tuned on what was drawn beyond them."""
    vectors, queries = drawn[:products], drawn[products:]
    if len(queries):
        return tuned_index(vectors, queries, config.index)
    index = make_index(vectors, config.index)
    return index, index.facts()


def _columns(ids: list[str], random: np.random.Generator) -> dict[str, Any]:
    count = len(ids)
    return {
        "product_id": np.array([one.encode() for one in ids], object),
        "title": np.array([one.encode() for one in titles(random, count)], object),
        "category": np.array([f"c{n % 50}".encode() for n in range(count)], object),
        "price": random.uniform(1, 100, count).astype(np.float32),
        "in_stock": np.ones(count, np.int64),
    }
