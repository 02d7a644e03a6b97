"""Exports of the real preprocessor and towers: their ops, and their answers loaded back."""

import tfmm  # isort: skip # noqa: F401 - selects legacy Keras before TensorFlow

from typing import Any

import numpy as np
import pytest
import tiny_model
import tiny_shop
from tensorflow.core.protobuf import saved_model_pb2

from tfmm import artifacts
from tfmm.artifacts import Signature, load_model
from tfmm.errors import TfmmError
from tfmm.signatures import by_operations

PRODUCTS = tiny_shop.products()


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Nothing here is random, and seeding makes TensorFlow drop every function it has optimised."""


@pytest.fixture(scope="module", params=["exact", "ivf", "scann"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """The real parts, untrained, in memory and loaded back."""
    if request.param == "exact":
        made, folder = request.getfixturevalue("shop")
    else:
        folder = tmp_path_factory.mktemp(request.param)
        made = tiny_model.retriever(folder, request.param)
        made.save(folder / "1")
    return made, load_model(folder)


@pytest.fixture(scope="module")
def is_stock(exported) -> bool:
    return exported[0].index.facts()["kind"] in ("exact", "ivf")


def test_all_but_scann_have_only_ops_that_stock_tensorflow_serving_links(exported, is_stock):
    path = exported[1].path
    missing = artifacts.missing_from_stock(path)
    if is_stock:
        assert missing == []
    else:
        assert missing
        assert all(op.startswith("Scann>") for op in missing)
    assert any("ordpiece" in op for op in artifacts.ops_of(path))


SOUND = tiny_shop.voice(3, 5)
QUERIES = [
    {"text": ["red shirt", "蓝色杯子"]},
    {"image": [PRODUCTS[5]["image"], b""], "k": [3, 20]},
    {"audio": [SOUND]},
    {"history": [["p01", "p02"], ["p05"]], "exclude": ["p01"]},
    {"history": ["p01", "p02"], "history_event": ["cart", ""], "history_age_seconds": [9e4, 60.0]},
    {"text": "red shirt", "image": [PRODUCTS[5]["image"]], "audio": SOUND, "history": ["p07"]},
    {"text": ["", "mug", ""], "image": [b"", b"", PRODUCTS[0]["image"]]},
    {},
]


@pytest.mark.parametrize("given", QUERIES, ids=lambda given: "+".join(given) or "empty")
def test_the_saved_model_answers_as_the_one_in_memory(exported, given):
    made, loaded = exported
    for name in ("serving_default", "embed_query"):
        known = {key: v for key, v in given.items() if key in loaded.signatures[name].inputs}
        saved = loaded.signatures[name]
        memory = Signature(name, by_operations(made.signatures()[name]), saved.inputs)(**known)
        for key, value in saved(**known).items():
            if value.dtype.kind == "f":
                np.testing.assert_allclose(value, memory[key], atol=1e-5)


def test_what_happened_in_a_history_and_when_may_be_told(exported):
    embed = exported[1].signatures["embed_query"]
    history = {"history": ["p01", "p02"]}

    def apart(**told: list[Any]) -> float:
        embeddings = embed(**history)["embedding"], embed(**history, **told)["embedding"]
        return float(np.abs(embeddings[0] - embeddings[1]).max())

    assert apart(history_event=["click", "purchase"]) > 1e-3
    assert apart(history_age_seconds=[3600.0, 60.0]) > 1e-3
    assert apart(history_event=["", "wish"], history_age_seconds=[-1.0, -5.0]) < 1e-6


def test_a_photo_that_cannot_be_read_is_refused_with_a_sentence(exported):
    with pytest.raises(TfmmError, match=r"^image: expected [^\n]*$"):
        exported[1].signatures["search_image"](image=[b"no photo"])


def test_a_product_embeds_as_it_stands_in_the_index(exported):
    made, loaded = exported
    embed = loaded.signatures["embed_product"]
    assert set(embed.inputs) == {"product_id", "title", "title_zh", "image"}
    row = PRODUCTS[9]
    embedding = embed(**{name: [row[name]] for name in embed.inputs})["embedding"]
    np.testing.assert_allclose(embedding[0], made.index.vectors[9].numpy(), atol=1e-5)


def test_only_the_signatures_are_saved_as_functions(exported):
    """Keras layers would bring their own call functions, training included."""
    content = saved_model_pb2.SavedModel()
    content.ParseFromString((exported[1].path / "saved_model.pb").read_bytes())
    saved = content.meta_graphs[0].object_graph_def.nodes
    identifiers = {node.user_object.identifier for node in saved if node.HasField("user_object")}
    assert not any("keras" in identifier for identifier in identifiers)
