"""`tfmm train`: from prepared records to a run directory."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tfmm import build
from tfmm._keras import keras
from tfmm.affinity_trainer import AffinityTrainer
from tfmm.config import Config, Strategy, TrainConfig, config_to_dict, vector_dim
from tfmm.data.batches import BatchPlan, Stores, dataset
from tfmm.data.companions import companions
from tfmm.data.impressions import ImpressionReader
from tfmm.data.pairs import LogReader, Pairs
from tfmm.data.positives import for_training
from tfmm.data.share import Share
from tfmm.data.stores import VARIANTS, StoreBuilder
from tfmm.errors import TfmmError
from tfmm.features.popularity import popularity_features
from tfmm.files import replacing, write_json
from tfmm.heldout import split_instants
from tfmm.model import ProductFacts, TwoTower
from tfmm.records.tfrecord import PreparedData
from tfmm.sampling import sampling_probability
from tfmm.strategy import make_strategy
from tfmm.towers.tower import Tower
from tfmm.trainer import Trainer, Validation, weights_of
from tfmm.workers import Workers

MAX_VALIDATION_PAIRS = 2000
# Steps between lines where no bar can be drawn, as in a file.
LINE_EVERY = 100


def train(
    data: Path,
    run: Path,
    *,
    config: Config,
    strategy: Strategy | None = None,
    progress: bool = True,
    restart: bool = False,
) -> dict[str, Any]:
    """Trains the two towers; continues where an interrupted run of the same recipe stopped.

    Args:
      data: A folder written by `tfmm prepare`.
      run: The run directory: recipe, caches, checkpoints, TensorBoard, weights, manifest.
      config: The recipe.
      strategy: Overrides the recipe's distribution strategy.
      progress: Whether progress is shown on stderr.
      restart: Throws an earlier run in the directory away.

    Returns:
      The run's manifest.

    Raises:
      TfmmError: The directory holds a run of another recipe or other data, the data lack what the
        recipe names, or the log has nothing to train on.
    """
    prepared = PreparedData(data)
    build.check_columns(config, prepared)
    console = Console(stderr=True, quiet=not progress)

    def say(line: str) -> None:
        console.print(line, highlight=False, soft_wrap=True)

    workers = Workers(make_strategy(strategy or config.train.strategy, say))
    with workers.together():
        finished = workers.chief_first(
            lambda: build.open_run(run, config, prepared, workers, restart=restart)
        )
        if finished is not None:
            say(f"{run}: up to date")
            return finished
        if not workers.is_chief:
            say(f"worker {workers.index}: training; worker 0 shows how far it is")
        with _bar(Console(stderr=True, quiet=not (progress and workers.is_chief))) as bar:
            return _Work(config, prepared, run, bar, workers).train()


@dataclass(frozen=True)
class _Log:
    """What the log and the catalogue gave: features, pairs and the split."""

    stores: Stores
    training: Pairs
    validation: Pairs
    split: dict[str, int]
    popularity: npt.NDArray[np.float32] | None

    def known(self) -> npt.NDArray[np.bool_]:
        """Which products have a training pair, [N]."""
        return np.bincount(self.training.product, minlength=self.stores.products.rows) > 0


@dataclass(frozen=True)
class _Work:
    config: Config
    prepared: PreparedData
    run: Path
    bar: Progress
    workers: Workers

    def train(self) -> dict[str, Any]:
        """From the prepared data to the run's manifest."""
        started = time.monotonic()
        log = self.workers.chief_first(self.read)
        trainer = self.fit(log)

        def finish() -> dict[str, Any]:
            if self.workers.is_chief:
                weights = self.fit_affinity(log, f"weights/step-{int(trainer.best_step.numpy())}")
                seconds = time.monotonic() - started
                _finish(self, log, trainer, weights=weights, seconds=seconds)
            return build.read_manifest(self.run)

        return self.workers.chief_first(finish)

    def read(self) -> _Log:
        """Vocabulary, feature stores, pairs."""
        ids = [row["product_id"] for row in self.prepared.rows("products", ["product_id"])]
        if not (self.run / build.VOCABULARY).exists():
            build.write_vocabulary(self.run, build.make_vocabulary(self.config, self.prepared))
        vocabulary = build.read_vocabulary(self.run)
        query_tower, product_tower = build.make_towers(self.config, vocabulary, products=len(ids))
        builder = StoreBuilder(
            self.config,
            self.prepared,
            preprocessor=build.make_preprocessor(self.config, vocabulary, ids),
            folder=self.run / "cache",
            encode_product=build.encode_frozen(product_tower),
            encode_query=build.encode_frozen(query_tower),
        )
        products = builder.products(self._task("products", len(ids)))
        words = builder.catalogue_queries(self._task("catalogue queries", None))
        index = {product_id: number for number, product_id in enumerate(ids)}
        reader = _log_reader(self.config.train, index)
        events = self._task("log", self.prepared.count("events") or None)
        queries, pairs = builder.log(reader, events)
        training, validation, split = _split(self.config, pairs)
        training = for_training(training, self.config.train)
        popularity = self._popularity(ids, training)
        changes, photographed = builder.changes(products, self._task("mixed queries", None))
        stores = Stores(products, queries, words, VARIANTS, changes, photographed)
        return _Log(stores, training, validation, split, popularity)

    def fit(self, log: _Log) -> Trainer:
        """Trains to the end, from the newest checkpoint."""
        config, replicas = self.config, _replicas(self.config.train, self.workers.strategy)
        plan = BatchPlan(
            config, log.training, log.stores, batch_size=config.train.batch_size // replicas
        )
        epoch = max(1, plan.batches_per_epoch // replicas)
        total = epoch * config.train.epochs
        total = min(total, config.train.max_steps) if config.train.max_steps else total
        trainer = Trainer(
            config.train,
            self.workers,
            make_model=lambda: self._make_model(plan, log),
            total_steps=total,
            folder=self.run,
        )
        done = trainer.restore()
        # Each worker drops and augments in its own way.
        keras.utils.set_random_seed((config.seed + done + self.workers.index * 2**20) % 2**32)

        def batches(share: Share) -> tf.data.Dataset:
            return dataset(plan, config.augment, share, start=done, stop=total)

        trainer.fit(
            batches,
            self._validation(log),
            validate_every=config.train.validate_steps or epoch,
            products=log.stores.products,
            report=self._steps(done, total, trainer),
        )
        return trainer

    def fit_affinity(self, log: _Log, weights: str) -> str:
        """Fits the item-to-item model to trained towers, where the recipe has one.

        Returns:
          The weights of the whole, from those of the towers.
        """
        if log.popularity is None or not self.config.tower.late.history:
            return weights
        products = log.stores.products
        towers = self._make_towers(products.rows)
        towers_only = weights_of(*towers)
        towers_only.read(str(self.run / weights)).expect_partial()
        keras.utils.set_random_seed(self.config.seed)
        trainer = AffinityTrainer(
            self.config.affinity,
            towers[1],
            products=products,
            from_log={
                "id": np.where(log.known(), np.arange(1, products.rows + 1), 0).astype(np.int32),
                "popularity": log.popularity,
            },
            seed=self.config.seed,
        )
        trainer.fit(companions(log.training), self._affinity_steps())
        whole = f"{weights}-affinity"
        weights_of(*towers).write(str(self.run / whole))
        return whole

    def _make_towers(self, products: int) -> tuple[Tower, Tower]:
        vocabulary = build.read_vocabulary(self.run)
        return build.make_towers(self.config, vocabulary, products=products)

    def _make_model(self, plan: BatchPlan, log: _Log) -> TwoTower:
        products = log.stores.products
        present: dict[str, npt.NDArray[np.bool_]] = {
            m: products.has(m) for m in self.config.tower.product
        }
        return TwoTower(
            self.config.train,
            *self._make_towers(products.rows),
            dim=self.config.tower.dim,
            sampling_probability=sampling_probability(plan.sources()),
            facts=ProductFacts(log.known(), present, log.popularity),
        )

    def _validation(self, log: _Log) -> Validation | None:
        if len(log.validation) == 0:
            return None
        random = np.random.default_rng(self.config.seed)
        count = min(MAX_VALIDATION_PAIRS, len(log.validation))
        rows = np.sort(random.permutation(len(log.validation))[:count])
        return Validation(
            log.validation.take(rows),
            log.stores.queries,
            log.stores.products,
            self.config.tower.query,
        )

    def _popularity(self, ids: list[str], training: Pairs) -> npt.NDArray[np.float32] | None:
        """Keeps what the training pairs say of each product; returns what the tower reads of it."""
        counts = np.bincount(training.product, weights=training.weight, minlength=len(ids))
        kept: dict[str, npt.NDArray[Any]] = {"product_id": np.array(ids)}
        kept |= {"count": counts.astype(np.float32)}
        if "popularity" in self.config.tower.product or self.config.tower.late.history:
            kept["features"] = popularity_features(
                training.product,
                training.timestamp_us,
                products=len(ids),
                days=self.config.tower.popularity_days,
            )
        if self.workers.is_chief:
            with replacing(self.run / build.POPULARITY) as file:
                np.savez(file, **kept)
        return kept.get("features")

    def _task(self, name: str, total: int | None) -> Callable[[int], None]:
        task = self.bar.add_task(name, total=total, detail="")
        return lambda rows: self.bar.advance(task, rows)

    def _steps(self, done: int, total: int, trainer: Trainer) -> Callable[[int, float], None]:
        task = self.bar.add_task("training", total=total, completed=done, detail="")
        started = time.monotonic()

        def report(step: int, loss: float) -> None:
            rate = (step - done) * self.config.train.batch_size / (time.monotonic() - started)
            recall = float(trainer.best_recall.numpy())
            validated = f"  best recall@10 {recall:.3f}" if recall >= 0 else ""
            detail = f"loss {loss:.3f}  {rate:.0f} pairs/s{validated}"
            self.bar.update(task, completed=step, detail=detail)
            if not self.bar.console.is_terminal and (step % LINE_EVERY == 0 or step == total):
                line = f"step {step} of {total}: {detail}"
                self.bar.console.print(line, highlight=False, soft_wrap=True)

        return report

    def _affinity_steps(self) -> Callable[[int, int, float], None]:
        task = self.bar.add_task("item to item", total=None, detail="")

        def report(step: int, steps: int, loss: float) -> None:
            self.bar.update(task, completed=step, total=steps, detail=f"loss {loss:.3f}")
            if not self.bar.console.is_terminal and (step % LINE_EVERY == 0 or step == steps):
                line = f"item to item: step {step} of {steps}: loss {loss:.3f}"
                self.bar.console.print(line, highlight=False, soft_wrap=True)

        return report


def _replicas(config: TrainConfig, strategy: tf.distribute.Strategy) -> int:
    """How many replicas share a batch, which the recipe must suit."""
    replicas = int(strategy.num_replicas_in_sync)
    if config.batch_size % replicas:
        raise TfmmError(
            f"train.batch_size: expected a multiple of {replicas} replicas,"
            f" received {config.batch_size}"
        )
    if config.jit_compile and replicas > 1 and "CPU" in strategy.extended.worker_devices[0]:
        raise TfmmError(
            f"train.jit_compile: expected false where {replicas} replicas run on CPUs, whose"
            " exchange TensorFlow cannot compile, received true"
        )
    return replicas


def _log_reader(config: TrainConfig, index: dict[str, int]) -> LogReader:
    needs_impressions = config.hard_negatives > 0 or config.position_bias != "none"
    return LogReader(
        config.weights,
        index,
        dwell_seconds=config.dwell_seconds,
        impressions=ImpressionReader() if needs_impressions else None,
    )


def _split(config: Config, pairs: Pairs) -> tuple[Pairs, Pairs, dict[str, int]]:
    bounds = (0, 0) if len(pairs) == 0 else split_instants(pairs.timestamp_us, config.split)
    time_us = pairs.timestamp_us
    validation = pairs.take((time_us >= bounds[0]) & (time_us < bounds[1]))
    training = pairs.take(time_us < bounds[0])
    return training, validation, {"validation_from_us": bounds[0], "test_from_us": bounds[1]}


def _finish(work: _Work, log: _Log, trainer: Trainer, *, weights: str, seconds: float) -> None:
    recall = float(trainer.best_recall.numpy())
    manifest = {
        "config": config_to_dict(work.config),
        "data": {"fingerprint": work.prepared.manifest["fingerprint"]},
        "split": log.split,
        "pairs": {"training": len(log.training), "validation": len(log.validation)},
        "steps": int(trainer.step.numpy()),
        "weights": weights,
        "metrics": {"validation recall@10": recall} if recall >= 0 else {},
        "temperature": float(trainer.model.temperature()),
        "seconds": round(seconds, 1),
        "dim": vector_dim(work.config),
        "replicas": trainer.replicas,
        "workers": work.workers.count,
    }
    write_json(work.run / build.MANIFEST, manifest)


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeRemainingColumn(),
        console=console,
    )
