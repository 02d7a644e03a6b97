"""The training loop: steps, checkpoints, validation, early stopping."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfmm._keras import keras
from tfmm.config import TrainConfig
from tfmm.data.pairs import Pairs
from tfmm.data.share import Share
from tfmm.data.store import Arrays, FeatureStore, parts
from tfmm.model import TwoTower
from tfmm.schedule import learning_rate
from tfmm.towers.tower import Tower, fused_part
from tfmm.workers import Workers

REPORT_EVERY = 20
Report = Callable[[int, float], None]


@dataclass(frozen=True)
class Validation:
    """Held-out pairs, ranked among all products after each epoch.

    Attributes:
      pairs: The pairs; V of them.
      queries: The store that `pairs.query` points into.
      products: The catalogue's features.
      modalities: Modalities of the query tower.
    """

    pairs: Pairs
    queries: FeatureStore
    products: FeatureStore
    modalities: tuple[str, ...]


class Trainer:
    """Trains a model and can be killed at any moment.

    Everything that the next step depends on (weights, optimiser, step, early stopping) is in the
    checkpoint, which TensorFlow writes aside and then renames. Of several workers only the chief
    writes: no variable is summed up over the replicas when it is read, so it needs nothing of the
    others.

    Args:
      config: The recipe's training section.
      workers: Where the step runs.
      make_model: Builds the model; called under the strategy's scope.
      total_steps: Steps of the whole training.
      folder: The run directory.
    """

    def __init__(
        self,
        config: TrainConfig,
        workers: Workers,
        *,
        make_model: Callable[[], TwoTower],
        total_steps: int,
        folder: Path,
    ) -> None:
        self._config = config
        self._workers = workers
        self._strategy = strategy = workers.strategy
        self._total = total_steps
        self._folder = folder
        with strategy.scope():
            self.model = make_model()
            self.model.compile(optimizer=_optimizer(config, total_steps))
            self.step = tf.Variable(0, dtype=tf.int64, trainable=False)
            self.best_recall = tf.Variable(-1.0, trainable=False)
            self.best_step = tf.Variable(0, dtype=tf.int64, trainable=False)
            self.misses = tf.Variable(0, dtype=tf.int64, trainable=False)
        # A restored hub module cannot be called outside a replica, so several replicas validate on
        # a copy that belongs to none.
        self._plain = make_model() if strategy.num_replicas_in_sync > 1 else self.model
        state = {"step": self.step, "recall": self.best_recall}
        state |= {"best_step": self.best_step, "misses": self.misses}
        self._checkpoint = tf.train.Checkpoint(
            model=self.model, optimizer=self.model.optimizer, **state
        )
        self._manager = tf.train.CheckpointManager(
            self._checkpoint, str(folder / "checkpoints"), max_to_keep=2
        )
        self._train_step = self._make_step()
        self._encode = tf.function(
            self._plain.product_tower.encoded, autograph=False, reduce_retracing=True
        )

    @property
    def replicas(self) -> int:
        """Devices that share a batch."""
        return int(self._strategy.num_replicas_in_sync)

    def restore(self) -> int:
        """Restores the newest checkpoint, if there is one, and returns the step it holds."""
        if self._manager.latest_checkpoint:
            self._checkpoint.restore(self._manager.latest_checkpoint).expect_partial()
        step = int(self.step.numpy())
        self._workers.must_agree(step, f"{self._folder / 'checkpoints'}: step of the newest")
        return step

    def fit(
        self,
        batches: Callable[[Share], tf.data.Dataset],
        validation: Validation | None,
        *,
        validate_every: int,
        products: FeatureStore,
        report: Report,
    ) -> None:
        """Runs the remaining steps.

        Args:
          batches: Makes the pipeline of the batches of this process's replicas, starting where
            training stands.
          validation: Held-out pairs, or None to train to the end.
          validate_every: Steps between validations.
          products: The catalogue's features.
          report: Called with the step and the loss, every few steps.
        """
        if self._out_of_patience():
            return
        done = int(self.step.numpy())
        self._fill_encodings(products)
        iterator = iter(self._distributed(batches))
        with self._writer().as_default():
            for step in range(done + 1, self._total + 1):
                loss = self._train_step(next(iterator))
                self.step.assign(step)
                if step % REPORT_EVERY == 0 or step == self._total:
                    self._log(step, float(loss), report)
                is_last = step == self._total
                if step % validate_every == 0 or is_last:
                    stop = validation is not None and self._validate(validation, step)
                    if not (is_last or stop):
                        self._fill_encodings(products)
                    self._save(step)
                    if stop:
                        break
                elif step % self._config.checkpoint_steps == 0:
                    self._save(step)
        self._keep_last_without_validation(validation)

    def product_embeddings(self, validation: Validation) -> npt.NDArray[np.float32]:
        """Embeddings of all products, [N, D]."""
        self._copy_to_plain()
        return np.concatenate(
            [
                self._plain.embed_products(
                    _tensors(validation.products.packed(part)), tf.constant(part, tf.int32)
                ).numpy()
                for part in parts(validation.products.rows)
            ]
        )

    def _distributed(self, batches: Callable[[Share], tf.data.Dataset]) -> Any:
        # Of a pipeline that ends, the workers would ask one another at each step whether it has.
        return self._strategy.distribute_datasets_from_function(
            lambda context: batches(Share.of(context)).repeat()
        )

    def _writer(self) -> tf.summary.SummaryWriter:
        if not self._workers.is_chief:
            return tf.summary.create_noop_writer()
        return tf.summary.create_file_writer(str(self._folder / "tensorboard"))

    def _save(self, step: int) -> None:
        if self._workers.is_chief:
            self._manager.save(checkpoint_number=step)

    def _fill_encodings(self, products: FeatureStore) -> None:
        """Encodes all products anew, where the model keeps their encodings."""
        if self.model.encodings is None:
            return
        self._copy_to_plain()
        filled = {
            name: np.zeros(variable.shape, np.float32)
            for name, variable in self.model.encodings.banks.items()
        }
        for part in parts(products.rows):
            encoded = self._encode(_tensors(products.packed(part)), False)
            for name in filled.keys() & {key.split("/")[0] for key in encoded}:
                filled[name][part[encoded[f"{name}/row"].numpy()]] = encoded[f"{name}/encoded"]
        for name, variable in self.model.encodings.banks.items():
            variable.assign(filled[name])

    def _copy_to_plain(self) -> None:
        if self._plain is not self.model:
            for copy, variable in zip(self._plain.variables, self.model.variables, strict=True):
                copy.assign(variable.read_value())

    def _make_step(self) -> Callable[[Any], tf.Tensor]:
        inner = self.model.train_step
        if self._config.jit_compile:
            inner = tf.function(inner, jit_compile=True, autograph=False)

        @tf.function(autograph=False)
        def step(batch: Any) -> tf.Tensor:
            losses = self._strategy.run(lambda inputs: inner(inputs)["loss"], args=(batch,))
            return self._strategy.reduce(tf.distribute.ReduceOp.SUM, losses, axis=None)

        return step

    def _log(self, step: int, loss: float, report: Report) -> None:
        tf.summary.scalar("loss", loss, step=step)
        tf.summary.scalar("temperature", self.model.temperature(), step=step)
        report(step, loss)

    def _validate(self, validation: Validation, step: int) -> bool:
        """Measures recall@10, keeps the best weights; True when patience has run out."""
        embeddings = self.product_embeddings(validation)
        bank = fused_part(embeddings, self.model.bank.shape[1], self.model.product_tower.parts)
        self.model.bank.assign(bank)
        if self._plain is not self.model:
            self._plain.bank.assign(bank)
        # Machines may round differently, and all must stop at the same step.
        recall = self._workers.of_chief(self.recall_at_10(validation, embeddings))
        tf.summary.scalar("validation/recall@10", recall, step=step)
        if recall > float(self.best_recall.numpy()):
            self.best_recall.assign(recall)
            self.best_step.assign(step)
            self.misses.assign(0)
            self._write_weights(step)
        else:
            self.misses.assign_add(1)
        return self._out_of_patience()

    def _out_of_patience(self) -> bool:
        return 0 < self._config.patience <= int(self.misses.numpy())

    def recall_at_10(self, validation: Validation, embeddings: npt.NDArray[np.float32]) -> float:
        """Share of the held-out pairs whose product is among the ten best of all products."""
        products = tf.convert_to_tensor(embeddings)
        hits = []
        for part in parts(len(validation.pairs)):
            queries = self._plain.embed_queries(_tensors(_query_features(validation, part)))
            scores = tf.linalg.matmul(queries, products, transpose_b=True)
            best = tf.math.top_k(scores, min(10, scores.shape[1])).indices.numpy()
            hits.append((best == validation.pairs.product[part, None]).any(axis=1))
        return float(np.concatenate(hits).mean())

    def _keep_last_without_validation(self, validation: Validation | None) -> None:
        if validation is None:
            step = int(self.step.numpy())
            self.best_step.assign(step)
            self._write_weights(step)

    def _write_weights(self, step: int) -> None:
        if not self._workers.is_chief:
            return
        weights = weights_of(self.model.query_tower, self.model.product_tower)
        weights.write(str(self._folder / "weights" / f"step-{step}"))


def weights_of(query_tower: Tower, product_tower: Tower) -> tf.train.Checkpoint:
    """The part of a model that the exported retriever needs."""
    return tf.train.Checkpoint(query_tower=query_tower, product_tower=product_tower)


def _query_features(validation: Validation, part: npt.NDArray[np.int64]) -> Arrays:
    rows = validation.pairs.query[part]
    features: Arrays = {"row": np.arange(len(rows), dtype=np.int32)}
    features |= validation.pairs.histories(part)
    for modality in validation.queries.modalities():
        if modality in validation.modalities:
            where = np.flatnonzero((rows >= 0) & validation.queries.has(modality)[rows])
            features[f"{modality}/row"] = where.astype(np.int32)
            features |= validation.queries.gather(modality, rows[where])
    return features


def _tensors(features: Arrays) -> dict[str, tf.Tensor]:
    return {name: tf.convert_to_tensor(value) for name, value in features.items()}


def _optimizer(config: TrainConfig, total_steps: int) -> keras.optimizers.Optimizer:
    schedule = learning_rate(
        config.learning_rate,
        steps=total_steps,
        warmup_steps=config.warmup_steps,
        decay_share=config.decay_share,
    )
    return keras.optimizers.AdamW(
        learning_rate=schedule, weight_decay=config.weight_decay, jit_compile=False
    )
