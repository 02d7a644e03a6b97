"""How the rows of optional inputs are aligned, and how bad ones are refused."""

import tfmm  # isort: skip # noqa: F401 - selects legacy Keras before TensorFlow

import numpy as np
import pytest
import tensorflow as tf

from tfmm import signatures
from tfmm.config import CatalogueConfig
from tfmm.errors import TfmmError
from tfmm.signatures import Input, by_operations, signature

INPUTS = [
    Input("text", tf.string, ""),
    Input("history", tf.string, "", 3),
    Input("k", tf.int32, 10),
    Input("in_stock_only", tf.bool, False),
]


def echo(given):
    return given


def test_absent_inputs_take_their_default_in_every_row():
    answer = signature(echo, INPUTS)(text=tf.constant(["a", "b"]))
    assert answer["text"].numpy().tolist() == [b"a", b"b"]
    assert answer["history"].numpy().tolist() == [[b""] * 3] * 2
    assert answer["k"].numpy().tolist() == [10, 10]
    assert answer["in_stock_only"].numpy().tolist() == [False, False]


def test_an_input_of_one_row_is_repeated_to_the_batch():
    answer = signature(echo, INPUTS)(
        text=tf.constant(["a", "b", "c"]), history=tf.constant([["x", "y", "z"]])
    )
    assert answer["history"].numpy().tolist() == [[b"x", b"y", b"z"]] * 3


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            {"text": ["a"] * 3, "k": [1, 2]},
            "k: expected 1 or 3 rows, received 2",
        ),
        ({"k": np.zeros(0, np.int32)}, "k: expected at least 1 row, received 0"),
        ({"text": [""] * 4097, "k": [1]}, "text: expected at most 4096 rows, received 4097"),
    ],
)
def test_a_length_that_is_neither_1_nor_the_batch_is_refused_with_a_sentence(given, sentence):
    call = signature(echo, INPUTS)
    dtypes = {one.name: one.dtype for one in INPUTS}
    fed = {name: tf.constant(value, dtypes[name]) for name, value in given.items()}
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        call(**fed)
    assert f"[{sentence}]" in str(error.value)


def alone():
    return signature(lambda given: {"text": given["text"]}, [Input("text", tf.string, "")])


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        ([], "text: expected at least 1 row, received 0"),
        (["a"] * 4097, "text: expected at most 4096 rows, received 4097"),
    ],
)
def test_a_signature_of_one_input_refuses_no_rows_and_too_many(texts, sentence):
    call = alone()
    assert call(text=tf.constant(["a"] * 4096))["text"].shape == (4096,)
    assert call()["text"].numpy().tolist() == [b""]
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        call(text=tf.constant(texts, tf.string))
    assert f"[{sentence}]" in str(error.value)


def test_a_signature_of_one_input_refuses_another_rank():
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        fed = tf.compat.v1.placeholder(tf.string)
        answer = signatures.aligned([Input("text", tf.string, "")], [fed])
        assert session.run(answer, {fed: ["a"]})["text"].tolist() == [b"a"]
        for value in ("a", [["a"]]):
            with pytest.raises(tf.errors.InvalidArgumentError, match="text: expected 1 dimension"):
                session.run(answer, {fed: value})


def test_two_inputs_of_one_name_are_an_error_of_the_recipe():
    with pytest.raises(TfmmError, match="received 'k'"):
        signature(echo, [*INPUTS, Input("k", tf.string, "")])


def test_a_facet_whose_name_is_no_identifier_is_an_error_of_the_recipe():
    facets = signatures.rules(CatalogueConfig(facets=("colour group",)))
    with pytest.raises(TfmmError, match="colour group"):
        signature(echo, facets)


def test_rules_hold_an_input_for_each_facet_and_bound():
    names = {one.name for one in signatures.rules(CatalogueConfig())}
    assert names == {
        "category", "brand", "min_price", "max_price",
        "in_stock_only", "max_per_category", "max_per_brand",
    }  # fmt: skip


def test_a_signature_answers_the_same_without_being_traced():
    traced = []

    def body(given: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        traced.append(not tf.executing_eagerly())
        inner = tf.function(lambda x: traced.append(not tf.executing_eagerly()) or x + 1)
        return {"sum": inner(given["a"]) + given["b"]}

    made = signature(body, [Input("a", tf.int32, 0), Input("b", tf.int32, 0)])
    given = {"b": tf.constant([3]), "a": tf.constant([1, 2])}
    np.testing.assert_array_equal(by_operations(made)(**given)["sum"], [5, 6])
    assert traced == [False, False]
    np.testing.assert_array_equal(made(**given)["sum"], [5, 6])
    assert traced == [False, False, True, True]
