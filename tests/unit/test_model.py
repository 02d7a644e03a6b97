import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from worker_processes import workers

import tfmm  # noqa: F401
from tfmm.config import TrainConfig

tf = pytest.importorskip("tensorflow")

from tfmm._keras import keras  # noqa: E402
from tfmm.model import TwoTower  # noqa: E402

DIM = 3
PRODUCTS = 5


class Sum:
    """Joins tokens [B, M, DIM] by their sum."""

    def __init__(self, *modalities: str) -> None:
        self.modalities = modalities

    def __call__(self, tokens: Any, present: Any) -> Any:
        return tf.math.l2_normalize(tf.einsum("bmd,bm->bd", tokens, present), axis=-1)

    def alone(self, modality: str, tokens: Any, present: Any) -> Any:
        return self(tokens, self.only(modality, present))

    def only(self, modality: str, present: Any) -> Any:
        return present * tf.one_hot(self.modalities.index(modality), len(self.modalities))


class Linear(keras.Model):
    """A tower that maps dense "x" [B, 2] to a unit vector; adds the history when there is one."""

    modalities: tuple[str, ...] = ("text",)
    joint = Sum("text")

    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(DIM, use_bias=False)

    def tokens(self, features: dict[str, Any], training: bool = False) -> Any:
        value = self.dense(features["x"])
        if "history/items" in features:
            count = tf.reduce_sum(features["history/known"], axis=1, keepdims=True)
            value += tf.reduce_sum(features["history/items"], axis=1) / tf.maximum(count, 1.0)
        return value[:, tf.newaxis], tf.ones([value.shape[0], 1])

    def call(self, features: dict[str, Any], training: bool = False) -> Any:
        return self.joint(*self.tokens(features, training))


def make(log_q: bool = True) -> TwoTower:
    keras.utils.set_random_seed(3)
    probability = np.array([0.5, 0.2, 0.1, 0.1, 0.1], dtype=np.float32)
    config = TrainConfig(temperature=0.5, log_q=log_q, unimodal=0.0, batch_size=4)
    return TwoTower(config, Linear(), Linear(), dim=DIM, sampling_probability=probability)


def inputs(rows: int = 4) -> dict[str, Any]:
    random = np.random.default_rng(0)
    index = np.array([0, 1, 0, 2][:rows], dtype=np.int32)
    product = random.normal(size=(PRODUCTS, 2)).astype(np.float32)
    history = np.array([[0, 0], [0, 4], [1, 2], [0, 0]][:rows], dtype=np.int32)
    return {
        "query": {
            "x": tf.constant(random.normal(size=(4, 2)).astype(np.float32)[:rows]),
            "history": tf.constant(history),
        },
        "product": {"x": tf.constant(product[index])},
        "product_index": tf.constant(index),
        "weight": tf.constant(np.array([1.0, 2.0, 0.5, 1.0], dtype=np.float32)[:rows]),
    }


def test_loss_is_the_weighted_softmax_with_log_q_and_without_accidental_hits():
    model, batch = make(), inputs()
    queries = model.embed_queries(batch["query"]).numpy()
    products = model.embed_products(batch["product"], batch["product_index"]).numpy()
    logits = queries @ products.T / 0.5
    index = batch["product_index"].numpy()
    # A positive is there whatever is drawn: only negatives are corrected.
    logits -= np.log(4 * np.array([0.5, 0.2, 0.1])[index])[None, :] * (1 - np.eye(4))
    expected = 0.0
    for row in range(4):
        others = [c for c in range(4) if c == row or index[c] != index[row]]
        normaliser = np.log(np.exp(logits[row, others]).sum())
        expected += batch["weight"].numpy()[row] * (normaliser - logits[row, row]) / 4
    np.testing.assert_allclose(model.compute_loss(batch).numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("loss", ["triplet", "max_margin"])
def test_a_margin_compares_cosines_without_accidental_hits(loss: str):
    keras.utils.set_random_seed(3)
    config = TrainConfig(temperature=0.5, loss=loss, margin=0.4, unimodal=0.0, batch_size=4)
    probability = np.array([0.5, 0.2, 0.1, 0.1, 0.1], dtype=np.float32)
    model = TwoTower(config, Linear(), Linear(), dim=DIM, sampling_probability=probability)
    batch = inputs()
    queries = model.embed_queries(batch["query"]).numpy()
    products = model.embed_products(batch["product"], batch["product_index"]).numpy()
    cosine, index = queries @ products.T, batch["product_index"].numpy()
    expected = 0.0
    for row in range(4):
        others = [c for c in range(4) if index[c] != index[row]]
        excess = np.maximum(0.4 + cosine[row, others] - cosine[row, row], 0)
        farther = excess[excess < 0.4]
        one = farther.max() if len(farther) else excess.min()
        kept = one if loss == "triplet" else excess.mean()
        expected += batch["weight"].numpy()[row] * kept / 4
    np.testing.assert_allclose(model.compute_loss(batch).numpy(), expected, rtol=1e-5)


def test_log_q_can_be_left_out():
    with_it, without = make(), make(log_q=False)
    assert abs(with_it.compute_loss(inputs()) - without.compute_loss(inputs())) > 1e-3


def test_history_is_the_mean_of_the_bank():
    model, batch = make(), inputs()
    bank = np.random.default_rng(1).normal(size=(PRODUCTS, DIM)).astype(np.float32)
    before = model.embed_queries(batch["query"]).numpy()
    model.bank.assign(bank)
    after = model.embed_queries(batch["query"]).numpy()
    value = model.query_tower.dense(batch["query"]["x"]).numpy()
    value[1] += bank[3]
    value[2] += (bank[0] + bank[1]) / 2
    expected = value / np.linalg.norm(value, axis=1, keepdims=True)
    np.testing.assert_allclose(after, expected, rtol=1e-5)
    np.testing.assert_allclose(after[[0, 3]], before[[0, 3]])


def test_training_leaves_the_products_of_the_batch_in_the_bank():
    model, batch = make(), inputs()
    model.compute_loss(batch, training=True)
    products = model.embed_products(batch["product"], batch["product_index"]).numpy()
    np.testing.assert_allclose(model.bank.numpy()[[0, 1, 2]], products[[0, 1, 3]], rtol=1e-6)
    np.testing.assert_array_equal(model.bank.numpy()[[3, 4]], 0)


def test_temperature_and_towers_get_gradients():
    model, batch = make(), inputs()
    with tf.GradientTape() as tape:
        loss = model.compute_loss(batch, training=True)
    gradients = tape.gradient(loss, model.trainable_variables)
    assert len(gradients) == 3
    assert all(np.abs(np.asarray(gradient)).max() > 0 for gradient in gradients)


class TwoTokens(Linear):
    """A tower of words and a photo; a row has those whose number is not 0."""

    modalities = ("text", "image")
    joint = Sum("text", "image")

    def tokens(self, features: dict[str, Any], training: bool = False) -> Any:
        x = features["x"]
        return x[:, :, tf.newaxis] * self.dense(tf.eye(2)), tf.cast(x != 0, tf.float32)


@pytest.mark.parametrize("log_q", [True, False])
def test_unimodal_adds_a_softmax_among_those_that_have_the_modality(log_q: bool):
    probability = np.array([0.5, 0.2, 0.1, 0.1, 0.1], dtype=np.float32)

    def make_with(unimodal: float) -> TwoTower:
        keras.utils.set_random_seed(3)
        config = TrainConfig(temperature=0.5, unimodal=unimodal, log_q=log_q, batch_size=4)
        towers = TwoTokens(), TwoTokens()
        return TwoTower(config, *towers, dim=DIM, sampling_probability=probability)

    batch = inputs()
    # Words; photo; photo; both, which asks by its words. Product 1 has no photo.
    query = np.array([[0.3, 0.0], [0.0, -1.0], [0.0, 0.7], [0.4, 0.9]], dtype=np.float32)
    product = np.array([[0.8, 1.0], [-0.5, 0.0], [0.8, 1.0], [0.2, -0.6]], dtype=np.float32)
    batch["query"]["x"], batch["product"]["x"] = tf.constant(query), tf.constant(product)
    batch["query"]["history"] = tf.zeros([4, 2], tf.int32)
    whole = float(make_with(0.0).compute_loss(batch, training=True))
    model = make_with(3.0)
    assert float(model.compute_loss(batch)) == pytest.approx(whole)
    added = float(model.compute_loss(batch, training=True)) - whole

    kernel = {"q": model.query_tower.dense.kernel.numpy(), "p": None}
    kernel["p"] = model.product_tower.dense.kernel.numpy()
    unit = lambda v: v / np.linalg.norm(v, axis=-1, keepdims=True)  # noqa: E731
    index, weight = batch["product_index"].numpy(), batch["weight"].numpy()
    expected = 0.0
    cases = ((0, 0, [0, 1, 3]), (2, 1, [2, 3]), (3, 0, [0, 1, 2, 3]))
    for row, modality, among in cases:
        asked = unit(query[row] @ kernel["q"])
        alone = unit(product[among, modality, np.newaxis] * kernel["p"][modality])
        is_other = np.array(among) != row
        logits = alone @ asked / 0.5 - log_q * is_other * np.log(4 * probability[index[among]])
        expected += weight[row] * (np.log(np.exp(logits).sum()) - logits[among.index(row)]) / 4
    assert added == pytest.approx(3.0 * expected, rel=1e-4)


def test_purchases_are_a_second_task_with_a_temperature_of_its_own():
    probability = np.array([0.5, 0.2, 0.1, 0.1, 0.1], dtype=np.float32)

    def make_with(purchase_task: float) -> TwoTower:
        keras.utils.set_random_seed(3)
        config = TrainConfig(
            temperature=0.5, unimodal=0.0, purchase_task=purchase_task, batch_size=4
        )
        return TwoTower(config, Linear(), Linear(), dim=DIM, sampling_probability=probability)

    bought = np.array([0.0, 4.0, 4.0, 0.0], np.float32)
    batch = inputs() | {"purchase": tf.constant(bought)}
    batch["query"]["history"] = tf.zeros([4, 2], tf.int32)
    whole = float(make_with(0.0).compute_loss(batch, training=True))
    model = make_with(3.0)
    assert float(model.compute_loss(batch)) == pytest.approx(whole)
    model.log_purchase_temperature.assign(np.log(0.8))
    index = batch["product_index"].numpy()
    queries = model.embed_queries(batch["query"]).numpy()
    products = model.embed_products(batch["product"], batch["product_index"]).numpy()
    logits = queries @ products.T / 0.8
    logits -= np.log(4 * probability[index])[None, :] * (1 - np.eye(4))
    expected = 0.0
    for row in (1, 2):
        others = [c for c in range(4) if c == row or index[c] != index[row]]
        entropy = np.log(np.exp(logits[row, others]).sum()) - logits[row, row]
        expected += batch["weight"].numpy()[row] * bought[row] * entropy / 4
    added = float(model.compute_loss(batch, training=True)) - whole
    assert added == pytest.approx(3.0 * expected, rel=1e-4)
    with tf.GradientTape() as tape:
        loss = model.compute_loss(batch, training=True)
    assert abs(float(tape.gradient(loss, model.log_purchase_temperature))) > 1e-3


@pytest.mark.parametrize("others", [False, True])
def test_symmetric_adds_a_softmax_of_each_product_over_the_queries(others: bool):
    probability = np.array([0.5, 0.2, 0.1, 0.1, 0.1], dtype=np.float32)

    def make_with(symmetric: float) -> TwoTower:
        keras.utils.set_random_seed(3)
        config = TrainConfig(
            temperature=0.5, unimodal=0.0, symmetric=symmetric, batch_size=4,
            other_positives=2 * others,
        )  # fmt: skip
        towers = TwoTokens(), TwoTokens()
        return TwoTower(config, *towers, dim=DIM, sampling_probability=probability)

    # Products 0, 1, 0, 2; the second query led to product 2 too.
    batch = inputs()
    batch["query"]["history"] = tf.zeros([4, 2], tf.int32)
    if others:
        batch["others"] = tf.constant([[-1, -1], [2, -1], [-1, -1], [-1, -1]], tf.int32)
    whole = float(make_with(0.0).compute_loss(batch, training=True))
    model = make_with(3.0)
    added = float(model.compute_loss(batch, training=True)) - whole

    queries = model.embed_queries(batch["query"]).numpy()
    products = model.embed_products(batch["product"], batch["product_index"]).numpy()
    logits = products @ queries.T / 0.5
    among = [[0, 1, 3], [0, 1, 2, 3], [1, 2, 3], [0, 2, 3] if others else [0, 1, 2, 3]]
    entropy = [np.log(np.exp(logits[row, among[row]]).sum()) - logits[row, row] for row in range(4)]
    expected = (batch["weight"].numpy() * entropy).sum() / 4
    assert added == pytest.approx(3.0 * expected, rel=1e-4)


def test_other_positives_are_negatives_neither_of_the_whole_nor_of_a_modality():
    keras.utils.set_random_seed(3)
    config = TrainConfig(temperature=0.5, unimodal=1.0, batch_size=4, other_positives=2)
    probability = np.full(PRODUCTS, 0.2, np.float32)
    model = TwoTower(config, TwoTokens(), TwoTokens(), dim=DIM, sampling_probability=probability)
    # Products 0, 1, 0, 2: every row's others are all that differ from its own.
    others = tf.constant([[1, 2], [0, 2], [1, 2], [0, 1]], tf.int32)
    assert float(model.compute_loss(inputs() | {"others": others}, training=True)) == 0.0
    fewer = tf.where(others == 2, -1, others)
    assert float(model.compute_loss(inputs() | {"others": fewer}, training=True)) > 0.1


TWO_REPLICAS = """
import sys
sys.path[:0] = {folders!r}
import test_model as t
import tensorflow as tf, numpy as np
from tfmm.strategy import make_strategy
strategy = make_strategy({kind!r})
assert strategy.num_replicas_in_sync == 2
def part(value, at):
    return tf.nest.map_structure(lambda x: x[2 * at : 2 * at + 2], value)
with strategy.scope():
    model = t.make()
    model.compile(optimizer=t.keras.optimizers.SGD(0.1))
@tf.function
def step(batch):
    return strategy.run(lambda b: model.train_step(b)["loss"], args=(batch,))
batch = t.inputs()
parts = strategy.experimental_distribute_values_from_function(
    lambda context: part(batch, context.replica_id_in_sync_group))
total = strategy.reduce(tf.distribute.ReduceOp.SUM, step(parts), axis=None)
one = t.make()
one.compile(optimizer=t.keras.optimizers.SGD(0.1))
expected = one.train_step(batch)["loss"]
np.testing.assert_allclose(float(total), float(expected), rtol=1e-5)
for mine, theirs in zip(model.trainable_variables, one.trainable_variables, strict=True):
    np.testing.assert_allclose(mine.numpy(), theirs.numpy(), rtol=1e-4, atol=1e-6)
for local in strategy.experimental_local_results(model.bank):
    np.testing.assert_allclose(local.numpy(), one.bank.numpy(), rtol=1e-5, atol=1e-6)
"""

TWO_REPLICAS_OF_REAL_TOWERS = """
import test_model_negatives as n
recipe = dict(uniform_negatives=4, hard_negatives=2, hard_negative_weight=2.0, other_positives=2)
one = n.make({hub!r}, **recipe, unimodal=0.5, symmetric=0.5)
with strategy.scope():
    model = n.make({hub!r}, **recipe, unimodal=0.5, symmetric=0.5)
    model.compile(optimizer=t.keras.optimizers.SGD(0.1))
for mine, theirs in zip(model.variables, one.variables, strict=True):
    mine.assign(theirs)
model.encodings.banks["text"].assign(one.encodings.banks["text"])
def half(context):
    at = context.replica_id_in_sync_group
    rows = slice(2 * at, 2 * at + 2)
    more = dict(negatives=n.NEGATIVES[rows], hard=n.HARD[rows], others=n.OTHERS[rows])
    return n.batch(rows, **more)
step = tf.function(lambda batch: strategy.run(lambda b: model.train_step(b)["loss"], args=(batch,)))
parts = strategy.experimental_distribute_values_from_function(half)
total = strategy.reduce(tf.distribute.ReduceOp.SUM, step(parts), axis=None)
one.compile(optimizer=t.keras.optimizers.SGD(0.1))
whole = n.batch(negatives=n.NEGATIVES[:4], hard=n.HARD, others=n.OTHERS)
expected = one.train_step(whole)["loss"]
np.testing.assert_allclose(float(total), float(expected), rtol=1e-5)
for mine, theirs in zip(model.trainable_variables, one.trainable_variables, strict=True):
    np.testing.assert_allclose(mine.numpy(), theirs.numpy(), rtol=1e-4, atol=1e-6)
"""

NOTHING_IS_SUMMED_WHEN_READ = """
# So that a checkpoint which the chief writes alone needs nothing of the others.
for variable in [*model.variables, *model.optimizer.variables]:
    assert variable.synchronization != tf.VariableSynchronization.ON_READ, variable.name
print("equal")
"""


@pytest.mark.parametrize(
    ("kind", "processes", "more"),
    [
        pytest.param("mirrored_cpu", 1, TWO_REPLICAS_OF_REAL_TOWERS, id="devices"),
        pytest.param("multi_worker", 2, "", id="workers"),
        pytest.param(
            "multi_worker", 2, TWO_REPLICAS_OF_REAL_TOWERS, id="workers with real towers",
            marks=pytest.mark.slow,
        ),
    ],
)  # fmt: skip
def test_two_replicas_take_the_step_that_one_takes_on_the_same_batch(
    kind: str, processes: int, more: str, tmp_path: Path
):
    here = Path(__file__).parent
    folders, hub = [str(here), str(here.parent)], str(tmp_path / "hub")
    code = TWO_REPLICAS + more + NOTHING_IS_SUMMED_WHEN_READ
    program = [sys.executable, "-c", code.format(kind=kind, folders=folders, hub=hub)]
    with workers([program] * processes, tmp_path) as started:
        for worker in started:
            worker.wait(300)
            assert worker.printed().strip().endswith("equal"), worker.said()[-3000:]
            assert "coordination" not in worker.said()


def test_a_margin_of_the_second_task_is_one_of_cosines_whatever_the_temperatures():
    def make_with(purchase_task: float) -> TwoTower:
        keras.utils.set_random_seed(3)
        config = TrainConfig(
            loss="triplet", temperature=0.5, unimodal=0.0, purchase_task=purchase_task, batch_size=4
        )
        uniform = np.full(5, 0.2, np.float32)
        return TwoTower(config, Linear(), Linear(), dim=DIM, sampling_probability=uniform)

    batch = inputs()
    # Everybody bought: both tasks are the same loss of the same cosines.
    batch |= {"purchase": tf.ones_like(batch["weight"])}
    batch["query"]["history"] = tf.zeros([4, 2], tf.int32)
    whole = float(make_with(0.0).compute_loss(batch, training=True))
    assert whole > 0
    model = make_with(3.0)
    model.log_purchase_temperature.assign(np.log(0.05))
    both = float(model.compute_loss(batch, training=True))
    assert both == pytest.approx(4 * whole, rel=1e-5)
