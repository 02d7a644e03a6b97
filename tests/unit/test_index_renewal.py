"""Indexes whose variables were rewritten, against NumPy and against indexes built anew."""

import tfmm  # isort: skip # noqa: F401 - selects legacy Keras before TensorFlow

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from index_cases import DIM, ask, served, shop, unit

from tfmm.config import IndexConfig
from tfmm.index.choice import make_index
from tfmm.index.ivf import leaf_of
from tfmm.index.renewal import Moves, renewed_index, stored_vectors


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Nothing here is random, and seeding makes TensorFlow drop every function it has optimised."""


class Renewing:
    """An index in memory that is refreshed as a saved one is: by new values of its variables."""

    def __init__(self, vectors: np.ndarray, **config) -> None:
        self.config = IndexConfig(**config)
        self.index = make_index(vectors, self.config)
        self.call, self.vectors = served(self.index), vectors
        self.facts = self.index.facts()

    def variables(self) -> dict[str, tf.Variable]:
        names = ["vectors", "scale", "centroids", "members", "starts", "most_seen", "base"]
        names += ["slots", "tail", "tail_vectors"]
        there = {name: getattr(self.index, name, None) for name in names}
        found = {name: one for name, one in there.items() if one is not None}
        state = enumerate(getattr(self.index, "state", []))
        return found | {f"state/{number}": one for number, one in state}

    def refresh(self, moves: Moves, *, compact_above: float = 1.0) -> None:
        variables = self.variables()
        saved = {name: one.numpy() for name, one in variables.items()}
        made = renewed_index(
            saved, moves, config=self.config, facts=self.facts, compact_above=compact_above
        )
        for name, value in made.tensors.items():
            variables[name].assign(value)
        if made.searcher:
            self.index.release()
        self.facts |= made.facts
        self.vectors = moves.applied(self.vectors, moves.vectors)

    def found(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        return ask(self.call, queries, k)


def moves(random: np.random.Generator, vectors: np.ndarray, *, gone=0, changed=0, added=0) -> Moves:
    """Random products go, change and come; what is new lies near what is there."""
    size = len(vectors)
    left = np.sort(random.permutation(size)[: size - gone])
    changed = np.sort(random.permutation(len(left))[:changed])
    near = vectors[random.integers(size, size=len(changed) + added)]
    new = unit(near + 0.1 * random.normal(size=near.shape))
    renewed = np.concatenate([changed, len(left) + np.arange(added)])
    return Moves(left, added, renewed, new)


def best(vectors: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    return np.sort(queries @ vectors.T, axis=1)[:, ::-1][:, :k]


KINDS = {
    "exact": {"kind": "exact"},
    "ivf": {"kind": "ivf", "leaves": 8, "leaves_to_search": 10**6},
}
STEP = st.fixed_dictionaries(
    {name: st.integers(0, 60) for name in ("gone", "changed", "added")}
    | {"seed": st.integers(0, 9)}
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=6)
@given(steps=st.lists(STEP, min_size=1, max_size=4))
def test_after_any_refreshes_the_true_best_are_found(kind, steps):
    products, queries = shop(1_200)
    made = Renewing(products, **KINDS[kind])
    for step in steps:
        random = np.random.default_rng(step.pop("seed"))
        made.refresh(moves(random, made.vectors, **step))
    scores, indices = made.found(queries[:20], 10)
    np.testing.assert_allclose(scores, best(made.vectors, queries[:20], 10), atol=1e-5)
    true = np.take_along_axis(queries[:20] @ made.vectors.T, indices, axis=1)
    np.testing.assert_allclose(scores, true, atol=1e-5)
    assert made.facts["products"] == len(made.vectors)


@pytest.mark.parametrize("storage", ["bfloat16", "int8"])
def test_fewer_bits_are_those_of_an_index_made_anew(storage):
    products, _ = shop(50)
    made = Renewing(products, kind="exact", storage=storage)
    made.refresh(moves(np.random.default_rng(3), products, gone=5, changed=7, added=9))
    anew = Renewing(made.vectors, kind="exact", storage=storage).variables()
    for name, one in made.variables().items():
        np.testing.assert_array_equal(one.numpy(), anew[name].numpy())


def test_what_is_kept_of_an_index_gives_its_vectors_back():
    products, _ = shop(50)
    for storage, off in (("float32", 0.0), ("bfloat16", 2**-9), ("int8", 0.01)):
        variables = Renewing(products, kind="exact", storage=storage).variables()
        kept = stored_vectors({name: one.numpy() for name, one in variables.items()})
        np.testing.assert_allclose(kept, products, atol=off)
        assert kept.dtype == np.float32


def test_products_keep_their_leaf_and_new_ones_get_the_nearest():
    products, _ = shop(1_500)
    made = Renewing(products, kind="ivf", leaves=16)
    before = leaf_of(made.index.members.numpy(), made.index.starts.numpy())
    step = moves(np.random.default_rng(0), products, gone=100, changed=30, added=40)
    made.refresh(step)
    after = leaf_of(made.index.members.numpy(), made.index.starts.numpy())
    same = np.setdiff1d(np.arange(len(step.kept)), step.renewed)
    np.testing.assert_array_equal(after[same], before[step.kept[same]])
    near = np.argmax(step.vectors @ made.index.centroids.numpy().T, axis=1)
    np.testing.assert_array_equal(after[step.renewed], near)
    counts = np.sort(np.bincount(after))[::-1]
    np.testing.assert_array_equal(made.index.most_seen.numpy()[: len(counts)], np.cumsum(counts))


def test_a_compacted_ivf_has_leaves_of_its_products_alone():
    products, queries = shop(1_500)
    made = Renewing(products, kind="ivf", leaves=16, leaves_to_search=10**6)
    made.refresh(moves(np.random.default_rng(0), products, gone=1_400))
    assert made.index.centroids.shape[0] is None
    made.refresh(moves(np.random.default_rng(0), made.vectors), compact_above=-1)
    norms = np.linalg.norm(made.index.centroids.numpy(), axis=1)
    np.testing.assert_allclose(norms, 3_900, rtol=1e-3)
    scores, _ = made.found(queries, 5)
    np.testing.assert_allclose(scores, best(made.vectors, queries, 5), atol=1e-5)


def test_an_ivf_with_fewer_leaves_than_its_effort_searches_them_all():
    products, queries = shop(1_500)
    made = Renewing(products, kind="ivf", leaves=64, leaves_to_search=64)
    made.refresh(moves(np.random.default_rng(0), products, gone=1_490))
    made.refresh(moves(np.random.default_rng(0), made.vectors), compact_above=-1)
    assert made.facts["leaves"] <= 10
    scores, _ = made.found(queries, 5)
    np.testing.assert_allclose(scores, best(made.vectors, queries, 5), atol=1e-5)


@pytest.fixture(scope="module")
def tree():
    products, queries = shop(3_000)
    return Renewing(products, kind="scann"), queries


def recall(made: Renewing, queries: np.ndarray, k: int) -> float:
    """Of the best hits; every score has to be that of the product it stands by."""
    scores, indices = made.found(queries, k)
    assert indices.min() >= 0
    assert all(len(set(row)) == k for row in indices.tolist())
    true = np.take_along_axis(queries @ made.vectors.T, indices, axis=1)
    np.testing.assert_allclose(scores, true, atol=1e-5)
    last = best(made.vectors, queries, k)[:, -1:]
    return float((scores >= last - 1e-6).mean())


def test_a_searcher_with_a_tail_and_tombstones_finds_what_one_built_anew_finds(tree):
    made, queries = tree
    state = [one.numpy().tobytes() for one in made.index.state if one.dtype != tf.string]
    for seed in range(3):
        step = moves(np.random.default_rng(seed), made.vectors, gone=20, changed=20, added=30)
        made.refresh(step)
        assert recall(made, queries, 10) > 0.95
        assert recall(made, queries, 48) > 0.95
    assert made.facts["tail"] > 100
    assert made.facts["tombstones"] > 80
    assert [o.numpy().tobytes() for o in made.index.state if o.dtype != tf.string] == state
    made.refresh(moves(np.random.default_rng(9), made.vectors), compact_above=0.0)
    assert (made.facts["tail"], made.facts["tombstones"]) == (0, 0)
    assert made.index.base.numpy().shape == (0, DIM)
    assert recall(made, queries, 10) > 0.95


def test_what_a_searcher_would_find_and_is_gone_is_never_found():
    products, queries = shop(1_500)
    made = Renewing(products, kind="scann")
    near = np.unique(np.argsort(-(queries @ products.T), axis=1)[:, :3])
    kept = np.setdiff1d(np.arange(len(products)), near)
    made.refresh(Moves(kept, 0, np.zeros(0, np.int64), products[:0]))
    assert made.facts["tombstones"] == len(near)
    assert recall(made, queries, 16) > 0.95


def test_a_searcher_is_built_again_above_a_share():
    products, _ = shop(200)
    made = Renewing(products, kind="scann")
    step = moves(np.random.default_rng(0), products, added=10)
    made.refresh(step, compact_above=0.05)
    assert made.facts["tail"] == 10
    fingerprint = made.facts["fingerprint"]
    made.refresh(moves(np.random.default_rng(1), made.vectors, added=2), compact_above=0.05)
    assert made.facts["tail"] == 0
    assert made.facts["fingerprint"] != fingerprint


@settings(max_examples=8)
@given(steps=st.lists(STEP, min_size=1, max_size=3))
def test_a_small_searcher_stays_exact(steps):
    products, queries = shop(400)
    made = Renewing(products, kind="scann")
    for step in steps:
        random = np.random.default_rng(step.pop("seed"))
        made.refresh(moves(random, made.vectors, **step), compact_above=0.1)
    assert recall(made, queries[:10], 10) == 1.0
