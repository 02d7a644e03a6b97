"""Whatever bytes come, text features keep their promises."""

import tfmm  # isort: skip # noqa: F401 - selects legacy Keras before TensorFlow

import functools

import numpy as np
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfmm.config import TextConfig
from tfmm.features.text import TextFeatures, learn_vocabulary

CONFIG = TextConfig(max_query_tokens=6, max_product_tokens=10, ngram_buckets=32)
written = st.text(max_size=40).map(lambda text: text.encode("utf-8", "ignore"))
texts = st.one_of(written, st.binary(max_size=40))


@functools.cache
def functions():
    known = learn_vocabulary(["red dress 红裙 😍 and shoes"] * 5, size=200, case="fold")
    text = TextFeatures(CONFIG, known)
    one = tf.TensorSpec([None], tf.string)
    query = tf.function(text.query, input_signature=[one])
    product = tf.function(lambda a, b: text.product([a, b]), input_signature=[one, one])
    return len(known), query, product


@settings(max_examples=60)
@given(st.lists(texts, min_size=1, max_size=4))
def test_ids_are_of_the_vocabulary_and_stand_without_gaps(batch):
    size, query, _ = functions()
    made = query(tf.constant(batch))
    for name, bound in (("ids", size), ("ngrams", 32)):
        values = made[name].numpy()
        assert values.min() >= 0
        assert values.max() < bound
        filled = values != 0
        assert (filled[:, :-1] >= filled[:, 1:]).all()
    np.testing.assert_array_equal(made["present"], (made["ids"].numpy() != 0).any(axis=1))


@settings(max_examples=40)
@given(st.lists(st.tuples(texts, texts), min_size=2, max_size=4))
def test_a_row_does_not_depend_on_its_neighbours(batch):
    _, _, product = functions()
    first, second = (tf.constant(list(column)) for column in zip(*batch, strict=True))
    together, alone = product(first, second), product(first[:1], second[:1])
    for name, value in alone.items():
        np.testing.assert_array_equal(value[0], together[name][0])


@settings(max_examples=40)
@given(texts)
def test_a_product_of_one_field_reads_as_a_query_of_the_same_words(text):
    _, query, product = functions()
    asked, sold = query(tf.constant([text])), product(tf.constant([text]), tf.constant([""]))
    np.testing.assert_array_equal(asked["ids"], sold["ids"][:, :6])
