"""The queries that an index is tuned on."""

import tfmm  # isort: skip # noqa: F401 - selects legacy Keras before TensorFlow

from pathlib import Path

import fake_parts
import numpy as np
import pytest
from prepared import write_prepared

from tfmm.held_queries import sample_queries
from tfmm.records.tfrecord import PreparedData
from tfmm.workflows.export import TUNED_ON, held_out

IDS = [f"p{number}" for number in range(40)]
PRODUCTS = [
    {"product_id": name, "title": f"title {number}" if number != 2 else ""}
    for number, name in enumerate(IDS)
]


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Nothing here is random, and seeding makes TensorFlow drop every function it has optimised."""


def event(second: int, product: str, user: str) -> dict:
    return {
        "event_type": "click",
        "timestamp_us": second * 10**6,
        "product_id": product,
        "user_id": user,
    }


def sample(folder: Path, *more: str, count: int = 100, **tables: list[dict]) -> dict:
    prepared = PreparedData(write_prepared(folder / "data", products=PRODUCTS, **tables))
    config = fake_parts.config(*more)
    found = sample_queries(config, prepared, IDS, count=count)
    return {name: value.numpy().tolist() for name, value in found.items()}


def test_the_datasets_own_queries_are_taken_first(tmp_path: Path):
    queries = [
        {"query_id": "a", "text": "red shirt"},
        {"query_id": "b", "history": ["p1", "gone", "p2"]},
        {"query_id": "c"},
        {"query_id": "d", "history": ["gone"]},
        {"query_id": "e", "image": b"photo"},
    ]
    found = sample(tmp_path, queries=queries, events=[event(1, "p1", "u")])
    assert found["text"] == [b"red shirt", b"", b""]
    assert found["history"] == [[b""] * 4, [b"", b"", b"p1", b"p2"], [b""] * 4]
    assert found["image"] == [b"", b"", b"photo"]


def test_without_queries_histories_and_words_are_taken(tmp_path: Path):
    events = [event(second, f"p{second}", "u") for second in (3, 1, 2, 4, 5)]
    found = sample(tmp_path, events=[*events, event(9, "p7", "v")])
    assert found["history"][:2] == [[b"p2", b"p3", b"p4", b"p5"], [b"", b"", b"", b"p7"]]
    assert found["text"][2:5] == [b"title 0", b"title 1", b"title 3"]
    assert len(found["text"]) == 2 + 39


def test_a_sample_is_spread_over_what_there_is(tmp_path: Path):
    found = sample(tmp_path, count=8)
    assert found["text"] == [b"title %d" % number for number in range(0, 40, 5)]


def test_nothing_is_asked_that_the_query_tower_does_not_read(tmp_path: Path):
    found = sample(
        tmp_path, 'tower.query=["history"]', queries=[{"query_id": "a", "text": "red shirt"}]
    )
    assert found == {"history": []}


@pytest.mark.parametrize("count", [0, 3])
def test_products_moved_by_noise_fill_up_what_a_dataset_lacks(count):
    made = fake_parts.retriever()
    vectors = made.index.vectors.numpy()
    words = [f"title {number}" for number in range(count)]
    inputs = {"text": np.array(words, object)} if count else {}
    queries, said = held_out(lambda: made, inputs, vectors)
    assert queries.shape == (TUNED_ON, 16)
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1, atol=1e-4)
    assert said == {"tuned_on": {"dataset": count, "moved_products": TUNED_ON - count}}
    for row in range(count):
        assert np.argmax(vectors @ queries[row]) == row
