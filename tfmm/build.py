"""The composition root: from a recipe and data to the objects that do the work."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfmm._keras import keras
from tfmm.config import Config, affinity_widths, config_from_dict, config_to_dict
from tfmm.errors import TfmmError
from tfmm.features.ids import LoggedProducts
from tfmm.features.preprocessor import Preprocessor
from tfmm.features.text import learn_vocabulary
from tfmm.files import replacing, write_json
from tfmm.records.tfrecord import PreparedData
from tfmm.towers.hub import load_text_preprocessing
from tfmm.towers.tower import Tower, build_towers
from tfmm.workers import Workers

MANIFEST, CONFIG, VOCABULARY, POPULARITY = (
    "manifest.json",
    "config.json",
    "vocabulary.txt",
    "popularity.npz",
)


@dataclass(frozen=True)
class Trained:
    """A finished run, ready for export.

    Attributes:
      config: The recipe it was trained with.
      vocabulary: WordPieces.
      query_tower: The query tower, weights restored.
      product_tower: The product tower, weights restored.
      manifest: What training recorded: data fingerprint, split, validation recall.
      counts: Weight of each product id in the training log, in the order of its catalogue.
      log: The same products' `popularity_features`, float32 [N, F], where the tower reads them.
    """

    config: Config
    vocabulary: list[str]
    query_tower: Tower
    product_tower: Tower
    manifest: dict[str, Any]
    counts: Mapping[str, float]
    log: npt.NDArray[np.float32] | None = None

    def make_preprocessor(self, product_ids: Sequence[str]) -> Preprocessor:
        """The host half, for the catalogue with these product ids."""
        return make_preprocessor(
            self.config, self.vocabulary, product_ids, logged=self.logged_products()
        )

    def popularity(self, product_ids: Sequence[str]) -> npt.NDArray[np.float32]:
        """What each product counts in the training log, [N]; 0 for new products."""
        return np.array([self.counts.get(p, 0.0) for p in product_ids], dtype=np.float32)

    def logged_products(self) -> LoggedProducts | None:
        """What the training log says of products; None where there are none or no tower reads it.

        Products that the log does not know are new to it, also those of the training catalogue.
        """
        known = {p: row for row, (p, count) in enumerate(self.counts.items(), 1) if count > 0}
        reads = {"id", "popularity"} & set(self.config.tower.product)
        if not known or not (reads or affinity_widths(self.config)):
            return None
        rows = np.array(list(known.values()), np.int32)
        features = None if self.log is None else self.log[rows - 1]
        return LoggedProducts(list(known), rows=rows, features=features)


def make_preprocessor(
    config: Config,
    vocabulary: Sequence[str],
    product_ids: Sequence[str],
    *,
    logged: LoggedProducts | None = None,
) -> Preprocessor:
    """The host half of a recipe."""
    preprocessing = None
    if config.text.handle and config.text.preprocessing:
        preprocessing = load_text_preprocessing(
            config.text.preprocessing, config.text.max_product_tokens
        )
    return Preprocessor(
        config,
        vocabulary=vocabulary,
        product_ids=product_ids,
        text_preprocessing=preprocessing,
        logged=logged,
    )


def make_vocabulary(config: Config, prepared: PreparedData) -> list[str]:
    """WordPieces learnt from the catalogue's text columns."""
    check_columns(config, prepared)
    fields = config.catalogue.text
    texts = (row[name] for row in prepared.rows("products", fields) for name in fields if row[name])
    return learn_vocabulary(texts, size=config.text.vocabulary_size, case=config.text.case)


def check_columns(config: Config, prepared: PreparedData) -> None:
    """Checks that the catalogue has the columns that the recipe names.

    Raises:
      TfmmError: It has not.
    """
    known = prepared.schema("products")
    for key in ("text", "returned", "facets", "ranges"):
        for name in getattr(config.catalogue, key):
            if name not in known:
                raise TfmmError(
                    f"catalogue.{key}: expected columns among {', '.join(sorted(known))},"
                    f" received {name}"
                )


def open_run(
    run: Path, config: Config, prepared: PreparedData, workers: Workers, *, restart: bool
) -> dict[str, Any] | None:
    """Makes or finds the run directory; the chief does, and then the others find it.

    Returns:
      The manifest of a run that is finished.

    Raises:
      TfmmError: It holds a run of another recipe or other data, or not what the chief wrote.
    """
    trained_on = _training_config(config)
    stamp = {"config": trained_on, "data": prepared.manifest["fingerprint"]}
    path = run / CONFIG
    if workers.is_chief:
        if restart:
            shutil.rmtree(run, ignore_errors=True)
        run.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            write_json(path, stamp)
    elif not path.exists():
        raise TfmmError(
            f"{run}: expected a folder that all workers share, worker {workers.index} found nothing"
            " of what worker 0 wrote there"
        )
    if json.loads(path.read_text(encoding="utf-8")) != stamp:
        raise TfmmError(
            f"{run}: expected an empty run directory or one of the same recipe and data,"
            " found another run; choose another --run, or add --restart"
        )
    return read_manifest(run) if (run / MANIFEST).exists() else None


def read_manifest(run: Path) -> dict[str, Any]:
    """The manifest of a finished run."""
    manifest: dict[str, Any] = json.loads((run / MANIFEST).read_text(encoding="utf-8"))
    return manifest


def _training_config(config: Config) -> dict[str, Any]:
    """The recipe without what training does not depend on."""
    tree: dict[str, Any] = json.loads(json.dumps(config_to_dict(config)))
    for section in ("index", "evaluate", "prepare"):
        tree.pop(section)
    return tree


def make_towers(config: Config, vocabulary: Sequence[str], *, products: int) -> tuple[Tower, Tower]:
    """Query and product tower with fresh heads, encoders from their hub modules."""
    keras.utils.set_random_seed(config.seed)
    return build_towers(config, vocabulary_size=len(vocabulary), products=products)


def encode_frozen(
    tower: Tower,
) -> Callable[[Mapping[str, npt.NDArray[Any]]], dict[str, npt.NDArray[Any]]]:
    """A function that replaces the raw features of a tower's frozen encoders by their outputs."""
    frozen = {name: e for name, e in tower.encoders.items() if tower.is_frozen(name)}
    # The words of a product are read beside their encoding.
    read = {"text/ids"} if tower.affinity is not None else set()

    def encode(features: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        kept = {k: v for k, v in features.items() if k in read or k.split("/")[0] not in frozen}
        for name, encoder in frozen.items():
            row, prefix = f"{name}/row", f"{name}/"
            if row in features:
                raw = {
                    k.removeprefix(prefix): tf.convert_to_tensor(v)
                    for k, v in features.items()
                    if k.startswith(prefix) and k != row
                }
                # A module need not know what to do with no rows at all.
                nothing = np.zeros((0, encoder.output_width), np.float32)
                encoded = encoder.encode(raw).numpy() if len(features[row]) else nothing
                kept |= {row: features[row], f"{name}/encoded": encoded}
        return kept

    return encode


def write_vocabulary(run: Path, vocabulary: Sequence[str]) -> None:
    """Writes the run's vocabulary, one WordPiece a line."""
    with replacing(run / VOCABULARY) as file:
        file.write("".join(f"{piece}\n" for piece in vocabulary).encode())


def read_vocabulary(run: Path) -> list[str]:
    """The run's vocabulary."""
    return (run / VOCABULARY).read_text(encoding="utf-8").rstrip("\n").split("\n")


def load_run(run: str | Path) -> Trained:
    """Loads what training left in a run directory.

    Raises:
      TfmmError: The directory holds no finished run.
    """
    folder = Path(run)
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except OSError as error:
        raise TfmmError(
            f"{folder}: expected a finished run of tfmm train, found no {MANIFEST}"
        ) from error
    config = config_from_dict(manifest["config"], where=str(folder / MANIFEST))
    vocabulary = read_vocabulary(folder)
    with np.load(folder / POPULARITY) as saved:
        counts = dict(zip(saved["product_id"].tolist(), saved["count"].tolist(), strict=True))
        log = saved.get("features")
    query_tower, product_tower = make_towers(config, vocabulary, products=len(counts))
    checkpoint = tf.train.Checkpoint(query_tower=query_tower, product_tower=product_tower)
    try:
        status = checkpoint.read(str(folder / manifest["weights"]))
        status.expect_partial().assert_existing_objects_matched()
    except (AssertionError, ValueError, tf.errors.OpError) as error:
        raise TfmmError(
            f"{folder}: expected weights that fit the towers of this version of tfmm, found those"
            " of others; train again with --restart"
        ) from error
    return Trained(config, vocabulary, query_tower, product_tower, manifest, counts, log)
