"""What export decides and checks, without a run."""

import tfmm  # isort: skip # noqa: F401 - selects legacy Keras before TensorFlow

from pathlib import Path

import fake_parts
import numpy as np
import pytest

from tfmm import artifacts
from tfmm.artifacts import load_model
from tfmm.errors import RequirementMissedError, TfmmError
from tfmm.index.exact import LOWEST
from tfmm.workflows import export
from tfmm.workflows.inspect import inspect


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Nothing here is random, and seeding makes TensorFlow drop every function it has optimised."""


def answer(ids: list[str], scores: list[float]) -> dict:
    return {"product_id": np.array([ids], object), "score": np.array([scores], np.float32)}


def test_answers_are_the_same_up_to_rounding():
    expected = answer(["a", "b", "c"], [0.9, 0.5, 0.4])
    assert export.same_answer(expected, answer(["a", "b", "c"], [0.9, 0.500005, 0.4]))
    assert not export.same_answer(expected, answer(["a", "b", "c"], [0.9, 0.5001, 0.4]))


def test_ties_may_come_in_any_order():
    expected = answer(["a", "b", "c", "d"], [0.9, 0.5, 0.5, 0.1])
    assert export.same_answer(expected, answer(["a", "c", "b", "d"], [0.9, 0.5, 0.5, 0.1]))


def test_another_product_with_a_settled_score_is_another_answer():
    expected = answer(["a", "b", "c"], [0.9, 0.5, 0.4])
    assert not export.same_answer(expected, answer(["a", "x", "c"], [0.9, 0.5, 0.4]))
    assert export.same_answer(expected, answer(["a", "b", "x"], [0.9, 0.5, 0.4]))
    assert not export.same_answer(expected, answer(["a", "b", "b"], [0.9, 0.5, 0.4]))


def test_padding_is_part_of_an_answer():
    expected = answer(["a", ""], [0.9, LOWEST])
    assert export.same_answer(expected, answer(["a", ""], [0.9, LOWEST]))
    assert not export.same_answer(expected, answer(["a", "b"], [0.9, 0.1]))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory):
    made = fake_parts.retriever()
    folder = tmp_path_factory.mktemp("saved") / "1"
    folder.mkdir()
    made.save(folder)
    return made, folder


ASKED = [("serving_default", {"text": ["title 7", ""]}), ("similar", {"product_id": "p3"})]


def test_a_saved_model_that_answers_as_the_one_in_memory_is_accepted(saved):
    made, folder = saved
    export.verify(folder, made, ASKED)


def test_a_saved_model_of_other_products_is_refused(saved, tmp_path: Path):
    made, _ = saved
    other = fake_parts.retriever(30)
    other.save(tmp_path)
    with pytest.raises(TfmmError, match="answers otherwise"):
        export.verify(tmp_path, made, [("serving_default", {"k": [20]})])


def test_a_saved_model_that_lost_its_defaults_is_refused(saved, tmp_path: Path):
    """Loading a SavedModel and saving it again drops SignatureDef.defaults."""
    import tensorflow as tf

    made, folder = saved
    loaded = tf.saved_model.load(str(folder))
    tf.saved_model.save(loaded, str(tmp_path), signatures=dict(loaded.signatures))
    with pytest.raises(TfmmError, match="expected a default for"):
        export.verify(tmp_path, made, ASKED)


def test_inspect_shows_signatures_and_accepts_an_exact_model_for_the_stock_server(saved):
    shown = inspect(saved[1], stock=True)
    assert "serving_default" in shown
    assert "stock TensorFlow Serving 2.16 has every op" in shown
    assert "[B, 4]" in shown


def test_inspect_refuses_what_the_stock_server_cannot_load(saved, monkeypatch):
    monkeypatch.setattr(artifacts, "STOCK_OPS", artifacts.STOCK_OPS - {"TopKV2"})
    with pytest.raises(RequirementMissedError, match="found TopKV2"):
        inspect(saved[1], stock=True)
    assert "lacks TopKV2" in inspect(saved[1])


def test_loading_needs_no_training_code(saved):
    """What serves and scores cannot reach preprocessing or towers."""
    import subprocess
    import sys

    code = (
        "import sys; from tfmm.artifacts import load_model;"
        f"print(load_model({str(saved[1])!r}).signatures['search_text'](text='title 7'));"
        "print([m for m in sys.modules if m.startswith(('tfmm.features', 'tfmm.towers'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("[]")
    assert "p7" in done.stdout
    assert load_model(saved[1]).manifest == {}
