"""What ScaNN alone does: its configuration, its fingerprint, its one searcher."""

import tfmm  # isort: skip # noqa: F401 - selects legacy Keras before TensorFlow

import numpy as np
import pytest
from index_cases import ask, served, shop

from tfmm.config import IndexConfig
from tfmm.index import scann as tfmm_scann
from tfmm.index.scann import ScannIndex


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Nothing here is random, and seeding makes TensorFlow drop every function it has optimised."""


def test_building_twice_gives_the_same_index():
    products, _queries = shop(1500)
    first, second = (ScannIndex(products, IndexConfig()) for _ in range(2))
    for one, other in zip(first.state, second.state, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    assert first.fingerprint == second.fingerprint


def test_the_fingerprint_tells_vectors_and_settings_apart():
    products, _ = shop(1500)
    index = ScannIndex(products, IndexConfig())
    finer = ScannIndex(products, IndexConfig(leaves=20))
    moved = ScannIndex(np.roll(products, 1, axis=0), IndexConfig())
    assert len({index.fingerprint, finer.fingerprint, moved.fingerprint}) == 3


def test_settings_of_the_recipe_reach_the_searcher():
    products, _ = shop(1500)
    config = IndexConfig(leaves=30, leaves_to_search=7, reorder=90)
    effort = ScannIndex(products, config).facts()["effort"]
    assert effort["16"] == {"leaves_to_search": 7, "reorder": 90}
    assert effort["128"] == {"leaves_to_search": 7, "reorder": 128}
    assert ScannIndex(products, config).facts()["leaves"] == 30


def test_all_functions_of_a_process_share_one_searcher(monkeypatch):
    names = []
    build = tfmm_scann.scann_ops.tensors_to_scann

    def watched(*tensors, shared_name):
        names.append(shared_name)
        return build(*tensors, shared_name=shared_name)

    monkeypatch.setattr(tfmm_scann.scann_ops, "tensors_to_scann", watched)
    products, queries = shop(1100)
    index = ScannIndex(products, IndexConfig())
    for _ in range(3):
        ask(served(index), queries[:1], 3)
    assert len(names) == 3
    assert len(set(names)) == 1
    assert index.fingerprint in names[0]
