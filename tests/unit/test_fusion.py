from typing import Any

import numpy as np
import pytest

import tfmm  # noqa: F401

tf = pytest.importorskip("tensorflow")

from tfmm.towers.fusion import make_fusion  # noqa: E402

KINDS = ("weighted", "concat", "attention", "mlp_fm")
BATCH, MODALITIES, WIDTH = 5, 3, 8
PRESENT = np.array([[1, 0, 0], [0, 1, 1], [1, 1, 1], [0, 0, 0], [1, 0, 1]], dtype=np.float32)


def tokens() -> Any:
    return np.random.default_rng(0).normal(size=(BATCH, MODALITIES, WIDTH)).astype(np.float32)


def make(kind: Any, noise: float = 0.3) -> Any:
    """A fusion whose weights have all moved away from where they start."""
    layer = make_fusion(kind, WIDTH, modalities=MODALITIES, seed=1)
    layer(tokens(), PRESENT)
    random = np.random.default_rng(2)
    for variable in layer.trainable_variables:
        variable.assign_add(random.normal(size=variable.shape).astype(np.float32) * noise)
    return layer


def layer_norm(x: Any, layer: Any) -> Any:
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5) * layer.gamma.numpy() + layer.beta.numpy()


def dense(x: Any, layer: Any) -> Any:
    return x @ layer.kernel.numpy() + layer.bias.numpy()


def relu(x: Any) -> Any:
    return np.maximum(x, 0.0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("garbage", [np.nan, np.inf, 1e30, -7.0])
def test_what_stands_in_an_absent_slot_changes_no_bit(kind: Any, garbage: float):
    layer, clean = make(kind), tokens() * PRESENT[..., None]
    dirty = np.where(PRESENT[..., None] > 0, clean, np.float32(garbage))
    np.testing.assert_array_equal(layer(clean, PRESENT), layer(dirty, PRESENT))


@pytest.mark.parametrize("kind", KINDS)
def test_nan_in_an_absent_slot_reaches_no_gradient(kind: Any):
    layer = make(kind)
    dirty = tf.constant(np.where(PRESENT[..., None] > 0, tokens(), np.nan).astype(np.float32))
    with tf.GradientTape() as tape:
        tape.watch(dirty)
        loss = tf.reduce_sum(layer(dirty, PRESENT) ** 2)
    for gradient in tape.gradient(loss, [dirty, *layer.trainable_variables]):
        assert np.isfinite(gradient.numpy()).all()
    with tf.GradientTape() as tape:
        tape.watch(dirty)
        loss = tf.reduce_sum(layer(dirty, PRESENT) ** 2)
    np.testing.assert_array_equal(tape.gradient(loss, dirty).numpy()[PRESENT == 0], 0.0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("places", [(0,), (2,), (0, 2), (1, 2), (0, 1, 2)])
def test_modalities_that_no_row_has_need_not_be_there(kind: Any, places: tuple[int, ...]):
    layer, among = make(kind), np.isin(np.arange(MODALITIES), places)
    present = PRESENT * among
    some, there = tokens()[:, list(places)], present[:, list(places)]
    np.testing.assert_allclose(layer(some, there, places), layer(tokens(), present), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_with_nothing_becomes_a_learnt_vector(kind: Any):
    layer = make(kind)
    np.testing.assert_array_equal(layer(tokens(), PRESENT)[3], layer.nothing)
    assert np.linalg.norm(layer.nothing) > 0.1
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(tokens(), PRESENT) ** 2)
    np.testing.assert_allclose(tape.gradient(loss, layer.nothing), 2 * layer.nothing, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_does_not_see_its_neighbours(kind: Any):
    layer = make(kind)
    together = layer(tokens(), PRESENT).numpy()
    for row in range(BATCH):
        alone = layer(tokens()[row : row + 1], PRESENT[row : row + 1])
        np.testing.assert_allclose(alone[0], together[row], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_every_present_modality_counts(kind: Any):
    layer = make(kind)
    before = layer(tokens(), PRESENT).numpy()
    for modality in range(MODALITIES):
        changed = tokens()
        changed[:, modality] += np.linspace(-1, 1, WIDTH, dtype=np.float32)
        moved = np.abs(layer(changed, PRESENT).numpy() - before).max(axis=1) > 1e-4
        np.testing.assert_array_equal(moved, PRESENT[:, modality] > 0)


def test_weighted_is_a_softmax_mean_and_a_residual():
    layer, x = make("weighted"), tokens()
    scores = layer.logits.numpy() + (x * layer.gate.numpy()).sum(-1) / np.sqrt(WIDTH)
    for row in (0, 1, 2, 4):
        there = PRESENT[row] > 0
        weights = np.exp(scores[row, there]) / np.exp(scores[row, there]).sum()
        mean = weights @ x[row, there]
        hidden = relu(dense(layer_norm(mean, layer.norm), layer.hidden))
        expected = mean + dense(hidden, layer.residual)
        np.testing.assert_allclose(layer(x, PRESENT)[row], expected, atol=1e-5)


def test_weighted_starts_as_the_plain_mean_of_what_is_present():
    layer, x = make("weighted", noise=0.0), tokens()
    for row in (0, 1, 2, 4):
        expected = x[row, PRESENT[row] > 0].mean(axis=0)
        np.testing.assert_allclose(layer(x, PRESENT)[row], expected, atol=1e-6)


def test_concat_is_an_mlp_over_tokens_and_flags():
    layer, x = make("concat"), tokens() * PRESENT[..., None]
    flat = np.concatenate([x.reshape(BATCH, -1), PRESENT], axis=1)
    mixed = dense(relu(dense(flat, layer.hidden)), layer.mixed)
    expected = x.sum(1) / np.maximum(PRESENT.sum(1, keepdims=True), 1) + mixed
    rows = [0, 1, 2, 4]
    np.testing.assert_allclose(layer(x, PRESENT).numpy()[rows], expected[rows], atol=1e-4)


def test_mlp_fm_adds_the_products_of_all_pairs_of_present_factors():
    layer, x = make("mlp_fm"), tokens() * PRESENT[..., None]
    factors = dense(x, layer.factors)
    flat = np.concatenate([x.reshape(BATCH, -1), PRESENT], axis=1)
    for row in (0, 1, 2, 4):
        there = np.flatnonzero(PRESENT[row])
        pairwise = np.zeros(WIDTH)
        for position, left in enumerate(there):
            for right in there[position + 1 :]:
                pairwise += factors[row, left] * factors[row, right]
        expected = (
            x[row, there].mean(0)
            + dense(pairwise, layer.pairs)
            + dense(relu(dense(flat[row], layer.hidden)), layer.mixed)
        )
        np.testing.assert_allclose(layer(x, PRESENT)[row], expected, atol=1e-4)


def test_attention_is_one_transformer_block_over_the_present_tokens():
    layer, x, heads = make("attention"), tokens(), 4
    size = WIDTH // heads
    for row in (0, 1, 2, 4):
        there = PRESENT[row] > 0
        h = (x[row] + layer.modality.numpy())[there]
        normed = layer_norm(h, layer.norms[0])
        query, key, value = (dense(normed, d) for d in (layer.query, layer.key, layer.value))
        mixed = np.zeros_like(h)
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            scores = np.exp(query[:, part] @ key[:, part].T / np.sqrt(size))
            mixed[:, part] = scores / scores.sum(-1, keepdims=True) @ value[:, part]
        h = h + dense(mixed, layer.joined)
        h = h + dense(relu(dense(layer_norm(h, layer.norms[1]), layer.hidden)), layer.residual)
        np.testing.assert_allclose(layer(x, PRESENT)[row], h.mean(0), atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_forward_and_backward_compile_under_xla_and_agree(kind: Any):
    layer = make(kind)

    def gradients(x: Any, present: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(x, present) ** 2)
        return loss, tape.gradient(loss, layer.trainable_variables)

    compiled = tf.function(gradients, jit_compile=True, autograph=False)
    dirty = tf.constant(np.where(PRESENT[..., None] > 0, tokens(), np.nan).astype(np.float32))
    plain = gradients(dirty, tf.constant(PRESENT))
    fast = compiled(dirty, tf.constant(PRESENT))
    for left, right in zip(tf.nest.flatten(plain), tf.nest.flatten(fast), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_one_seed_gives_one_set_of_weights(kind: Any):
    first, second = make(kind, noise=0.0), make(kind, noise=0.0)
    for left, right in zip(first.variables, second.variables, strict=True):
        np.testing.assert_array_equal(left, right)
