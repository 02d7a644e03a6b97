"""`tfmm export`: from a run and a catalogue to a published SavedModel."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import platform
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tfmm import __version__, artifacts, build
from tfmm.artifacts import Answer, Signature
from tfmm.bounds import check_index
from tfmm.catalogue import content_fingerprints, product_inputs, read_columns
from tfmm.config import Config, IndexKind, config_to_dict
from tfmm.deployment import Request, warmup_requests, write_deployment
from tfmm.errors import TfmmError
from tfmm.features.preprocessor import Preprocessor
from tfmm.held_queries import sample_queries
from tfmm.index.choice import AnyIndex, kind_for, tuned_index
from tfmm.index.exact import LOWEST, ExactIndex
from tfmm.index.ivf import ONE_LEAF_BELOW
from tfmm.index.tuning import moved
from tfmm.ledger import Ledger, write_log
from tfmm.records.tfrecord import PreparedData
from tfmm.retriever import Retriever
from tfmm.signatures import by_operations

MANIFEST_FORMAT = 1
TOLERANCE = 1e-5
EMBED_BATCH = 256
# Queries that an index is tuned on: the dataset's, and else products moved by noise.
TUNED_ON = 256
MOVED_BY = 0.5
_PACKAGES = (
    "tensorflow",
    "tf-keras",
    "tensorflow-text",
    "tensorflow-hub",
    "tensorflow-recommenders",
    "tensorflow-io",
    "scann",
    "numpy",
)
# What evaluation must know of the training: where the test period starts, and on what.
_FROM_RUN = ("data", "split", "pairs", "steps", "metrics", "temperature")


def export(
    run: Path,
    data: Path,
    *,
    saved_models: Path = Path("saved_models"),
    index: IndexKind | None = None,
    progress: bool = True,
) -> Path:
    """Publishes a finished run with a catalogue as the next version of a model.

    The version is built aside, loaded back and compared with the retriever in memory; only then
    does it get its number, in one step.

    Args:
      run: A finished run directory of `tfmm train`.
      data: A prepared dataset; its products are the catalogue, which may have changed since
        training.
      saved_models: Where models are published, each in a folder of its recipe's name.
      index: Overrides the recipe's kind of index, on which training does not depend.
      progress: Whether progress is shown on stderr.

    Returns:
      The version folder.

    Raises:
      TfmmError: The run or the data cannot be used, or the version does not answer as it should.
    """
    trained, prepared = build.load_run(run), PreparedData(data)
    if index is not None:
        trained = _with_index(trained, index)
    build.check_columns(trained.config, prepared)
    console = Console(stderr=True, quiet=not progress)
    columns = read_columns(trained.config, prepared)
    ids = [one.decode() for one in columns["product_id"]]
    preprocessor = trained.make_preprocessor(ids)
    vectors, fingerprints = _embed(trained, preprocessor, prepared, console)
    ledger = Ledger(fingerprints, trained.popularity(ids))
    retriever_of = functools.partial(
        Retriever,
        trained.config,
        preprocessor=preprocessor,
        towers=(trained.query_tower, trained.product_tower),
        products=columns,
        popularity=ledger.popularity,
    )
    made, facts = _index(trained.config, prepared, ids=ids, vectors=vectors, whole=retriever_of)
    retriever = retriever_of(index=made)
    with artifacts.staging(saved_models / trained.config.name) as staged:
        console.print(f"saving {len(ids)} products, index {facts['kind']}")
        retriever.save(staged)
        artifacts.write_manifest(staged, _manifest(trained, prepared, index=facts) | _ops(staged))
        ledger.write(staged)
        write_log(staged, trained.counts)
        specs, words = artifacts.signature_specs(staged), _words(trained, prepared)
        asked = warmup_requests(specs, product_id=ids[0], text=words)
        write_deployment(staged, trained.config.name, asked)
        console.print("comparing the saved model with the one in memory")
        verify(staged, retriever, _compared(questions(trained.config, prepared), asked))
        return artifacts.publish(staged)


def _with_index(trained: build.Trained, kind: IndexKind) -> build.Trained:
    index = dataclasses.replace(trained.config.index, kind=kind)
    check_index(index, "--index")
    return dataclasses.replace(trained, config=dataclasses.replace(trained.config, index=index))


def _compared(first: list[Request], more: list[Request]) -> list[Request]:
    """Requests of a list and those of another to the same signatures.

    Each further signature would be optimised twice for it, and holds the same functions.
    """
    names = {name for name, _ in first}
    return [*first, *(request for request in more if request[0] in names)]


def _words(trained: build.Trained, prepared: PreparedData) -> str:
    """Words of the first product that has any."""
    fields = trained.config.catalogue.text
    rows = prepared.rows("products", fields)
    return next((row[name] for row in rows for name in fields if row[name]), trained.config.name)


def _embed(
    trained: build.Trained,
    preprocessor: Preprocessor,
    prepared: PreparedData,
    console: Console,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint64]]:
    """Unit vectors of all products, [N, D], and fingerprints [N] of what they are made of."""
    raw = product_inputs(trained.config, prepared).batch(EMBED_BATCH)
    features = raw.map(lambda one: (one, preprocessor.product(one)), num_parallel_calls=2)
    tower = tf.function(trained.product_tower, autograph=False, reduce_retracing=True)
    parts, fingerprints = [], []
    with _bar(console) as bar:
        task = bar.add_task("embedding products", total=prepared.count("products"))
        for content, batch in features.prefetch(2):
            parts.append(tower(batch).numpy())
            read = {name: value.numpy() for name, value in content.items()}
            fingerprints.append(content_fingerprints(read))
            bar.advance(task, len(parts[-1]))
    vectors: npt.NDArray[np.float32] = np.concatenate(parts).astype(np.float32)
    if not np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3):
        raise TfmmError("export: expected embeddings of unit norm, the trained towers give others")
    return vectors, np.concatenate(fingerprints)


def _index(
    config: Config,
    prepared: PreparedData,
    *,
    ids: Sequence[str],
    vectors: npt.NDArray[np.float32],
    whole: Callable[..., Retriever],
) -> tuple[AnyIndex, dict[str, Any]]:
    """The index of the products, and what the manifest says of it; `whole` takes an index."""
    if kind_for(config.index, len(ids)) == "exact":
        return tuned_index(vectors, vectors[:0], config.index)
    # So few products are searched whole, and there is nothing to tune.
    few = len(ids) < ONE_LEAF_BELOW
    inputs = {} if few else sample_queries(config, prepared, ids, count=TUNED_ON)
    queries, said = held_out(lambda: whole(index=ExactIndex(vectors)), inputs, vectors)
    made, facts = tuned_index(vectors, queries, config.index)
    return made, facts | said


def held_out(
    asking: Callable[[], Retriever],
    inputs: Mapping[str, tf.Tensor],
    vectors: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
    """Queries [Q, D] that an index of `vectors` is tuned on, and what a manifest says of them.

    They are a dataset's queries, `inputs` of `embed_query` of the retriever that `asking` makes;
    where these are few, products moved by noise too.
    """
    rows = min((len(value) for value in inputs.values()), default=0)
    queries = moved(vectors, TUNED_ON - rows, noise=MOVED_BY)
    if rows:
        embedded = asking().signatures()["embed_query"](**inputs)["embedding"].numpy()
        queries = np.concatenate([embedded, queries])
    return queries, {"tuned_on": {"dataset": rows, "moved_products": TUNED_ON - rows}}


def _manifest(
    trained: build.Trained, prepared: PreparedData, *, index: Mapping[str, Any]
) -> dict[str, Any]:
    carried = {key: trained.manifest[key] for key in _FROM_RUN if key in trained.manifest}
    tower = hashlib.sha256()
    for variable in (*trained.query_tower.variables, *trained.product_tower.variables):
        tower.update(np.ascontiguousarray(variable.numpy()).tobytes())
    return {
        "format": MANIFEST_FORMAT,
        "name": trained.config.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "config": config_to_dict(trained.config),
        "versions": {"tfmm": __version__, "python": platform.python_version()}
        | {name: metadata.version(name) for name in _PACKAGES},
        **carried,
        "catalogue": {"fingerprint": prepared.manifest["fingerprint"], **_source(prepared)},
        "tower_fingerprint": tower.hexdigest(),
        "index": dict(index),
    }


def _source(prepared: PreparedData) -> dict[str, Any]:
    return {"source": prepared.manifest.get("source"), "products": prepared.count("products")}


def _ops(staged: Path) -> dict[str, Any]:
    missing = artifacts.missing_from_stock(staged)
    return {
        "stock_serving": {"loads": not missing, "missing": missing},
        "ops": sorted(artifacts.ops_of(staged)),
    }


def questions(config: Config, prepared: PreparedData) -> list[tuple[str, dict[str, Any]]]:
    """Signature and inputs of the queries that a saved model is compared on."""
    rows = list(product_inputs(config, prepared).take(4).as_numpy_iterator())
    first = itertools.islice(prepared.rows("products", ["product_id"]), 4)
    known = [row["product_id"] for row in first]
    told = {"history_event": [["click"]], "history_age_seconds": [[3600.0]]}
    asked: list[tuple[str, dict[str, Any]]] = [
        ("serving_default", {}),
        ("serving_default", {"history": [known], "exclude": [known[:1]], "k": [5]}),
        ("serving_default", {"history": [known], **told}),
        ("serving_default", {"history": [known], **_rules(config)}),
        ("similar", {"product_id": [*known, "no such product"]}),
        ("embed_product", {name: [row[name] for row in rows] for name in rows[0]}),
    ]
    text = [next((row[n] for n in config.catalogue.text if row.get(n)), b"") for row in rows]
    asked += [("serving_default", {"text": text, "k": [1, 2, 3, 4][: len(text)]})]
    photos = [row["image"] for row in rows if row.get("image")]
    if photos and "image" in config.tower.query:
        asked += [
            ("search_image", {"image": photos}),
            ("serving_default", {"text": text[:1], "image": photos[:1], "history": [known[:2]]}),
            ("embed_query", {"text": text[:1], "image": photos[:1]}),
        ]
    return asked


def _rules(config: Config) -> dict[str, Any]:
    """Rules of each kind that a catalogue has, with which most of its products may comply."""
    limits = {f"max_per_{name}": [3] for name in config.catalogue.facets}
    bounds = {f"min_{name}": [0.0] for name in config.catalogue.ranges}
    return limits | bounds | {"in_stock_only": [True]}


def verify(staged: Path, retriever: Retriever, asked: list[tuple[str, dict[str, Any]]]) -> None:
    """Loads a saved model back and compares it with the one in memory.

    Raises:
      TfmmError: A signature or a default is missing, or an answer differs.
    """
    functions, specs = retriever.signatures(), artifacts.signature_specs(staged)
    if set(functions) != set(specs):
        raise TfmmError(f"export: expected signatures {sorted(functions)}, saved {sorted(specs)}")
    for name, inputs in specs.items():
        for key, spec in inputs.items():
            if spec.default is None or len(spec.default) != 1:
                raise TfmmError(f"export: expected a default for {name}.{key} in the SavedModel")
    memory = {name: Signature(name, by_operations(functions[name]), specs[name]) for name in specs}
    expected = [memory[name](**given) for name, given in asked]
    # Otherwise the saved model would find the searcher of the one in memory, and prove nothing.
    retriever.index.release()
    loaded = artifacts.load_model(staged)
    for (name, given), answer in zip(asked, expected, strict=True):
        if not same_answer(answer, loaded.signatures[name](**given)):
            raise TfmmError(f"export: the saved {name} answers otherwise than the one in memory")


def same_answer(expected: Answer, received: Answer) -> bool:
    """Whether two answers are equal within TOLERANCE, ties in any order."""
    if "embedding" in expected:
        return bool(np.allclose(expected["embedding"], received["embedding"], atol=TOLERANCE))
    scores, names = expected["score"], (expected["product_id"], received["product_id"])
    if not np.allclose(scores, received["score"], rtol=0, atol=TOLERANCE):
        return False
    if np.array_equal(*names):
        return all(
            np.array_equal(expected[key], received[key]) for key in expected.keys() - {"score"}
        )
    return all(_same_row(*row) for row in zip(*names, scores, strict=True))


def _same_row(
    expected: npt.NDArray[Any], received: npt.NDArray[Any], scores: npt.NDArray[Any]
) -> bool:
    """Whether two rankings agree but for the order of ties and what ties with the last hit."""
    hits = received[received != b""]
    last = scores[scores > LOWEST].min(initial=np.inf)
    settled = expected[scores > last + 2 * TOLERANCE]
    return set(settled) <= set(hits) and len(set(hits)) == len(hits)


def _bar(console: Console) -> Progress:
    columns: list[Any] = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
    return Progress(*columns, TimeRemainingColumn(), console=console)
