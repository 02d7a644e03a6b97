import tfmm  # isort: skip # noqa: F401 - selects legacy Keras before TensorFlow

import functools
import gc
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tiny_shop

from tfmm.config import load_config
from tfmm.errors import TfmmError
from tfmm.features.preprocessor import Preprocessor
from tfmm.features.text import learn_vocabulary

PHOTO = tiny_shop.photo((200, 30, 30), 3)
VOICE = tiny_shop.voice(3, 0)
IDS = ("p0", "红-1", "a b")


@functools.cache
def vocabulary():
    return learn_vocabulary(["red mug 红色杯子"] * 3, size=200, case="fold")


def preprocessor(*settings, ids=IDS):
    config = load_config(None, (*tiny_shop.SETTINGS, *settings))
    return Preprocessor(config, vocabulary=vocabulary(), product_ids=ids)


def strings(*values):
    return tf.constant(values, tf.string)


def test_each_modality_holds_only_the_rows_that_have_it():
    raw = {
        "text": strings("red", "", "mug", " "),
        "image": strings("", PHOTO, "", PHOTO),
        "audio": strings(VOICE, "", "", ""),
        "history": strings(("", "p0"), ("", ""), ("", ""), ("", "")),
    }
    made = preprocessor().query(raw)
    np.testing.assert_array_equal(made["row"], [0, 1, 2, 3])
    np.testing.assert_array_equal(made["text/row"], [0, 2])
    np.testing.assert_array_equal(made["image/row"], [1, 3])
    np.testing.assert_array_equal(made["audio/row"], [0])
    assert made["text/ids"].shape == (2, 8)
    assert made["text/ngrams"].shape == (2, 16)
    assert made["image/pixels"].shape == (2, 16, 16, 3)
    assert made["audio/log_mel"].shape == (1, 25, 16)
    assert {value.dtype for name, value in made.items() if name.endswith("row")} == {tf.int32}


def test_history_is_index_plus_one_and_unknown_or_no_product_is_0():
    history = strings(("", "a b", "p0"), ("p9", "红-1", "P0"))
    made = preprocessor().query({"history": history})["history"]
    np.testing.assert_array_equal(made, [[0, 0, 3, 1], [0, 0, 2, 0]])
    assert made.dtype == tf.int32


def test_of_a_long_history_the_newest_are_read():
    made = preprocessor().query({"history": strings(("p0", "", "", "红-1", "a b"))})["history"]
    np.testing.assert_array_equal(made, [[0, 0, 2, 3]])


def test_what_happened_and_when_stand_beside_their_products():
    raw = {"history": strings(("p0", "", "", "红-1", "a b"), ("", "", "", "", "p0"))}
    plain = preprocessor().query(raw)
    assert not {"history/event", "history/age"} & set(plain)
    events = ("click", "", "wish", "cart", "purchase"), ("", "", "", "", "impression")
    ages = [[9.0, -1.0, -1.0, 7.5, 0.0], [-1.0, -1.0, -1.0, -1.0, 60.0]]
    raw |= {"history_event": strings(*events), "history_age_seconds": tf.constant(ages)}
    made = preprocessor().query(raw)
    np.testing.assert_array_equal(made["history/event"], [[0, 0, 2, 3], [0, 0, 0, 0]])
    np.testing.assert_array_equal(made["history/age"], [[-1, -1, 7.5, 0], [-1, -1, -1, 60]])
    short = preprocessor().query(raw | {"history_event": strings(("click",), ("cart",))})
    np.testing.assert_array_equal(short["history/event"], [[0, 0, 0, 1], [0, 0, 0, 2]])
    unread = preprocessor("history.events=false", "history.ages=false").query(raw)
    assert not {"history/event", "history/age"} & set(unread)


def test_lookup_takes_any_shape_and_says_minus_one_for_unknown_ids():
    table = preprocessor()
    np.testing.assert_array_equal(
        table.lookup(strings(("红-1", ""), ("x", "a b"))), [[1, -1], [-1, 2]]
    )
    assert int(table.lookup(strings("p0")[0])) == 0
    assert table.lookup(strings()).shape == (0,)


def test_without_a_catalogue_no_product_is_known():
    np.testing.assert_array_equal(preprocessor(ids=()).lookup(strings("p0", "")), [-1, -1])


def test_ids_keep_their_spaces_and_signs():
    ids = (" p", "p ", "p\t1", "#", '"q"', "p\\n", "é", "e\u0301")
    table = preprocessor(ids=ids)
    np.testing.assert_array_equal(table.lookup(strings(*ids, "p", "p1")), [*range(8), -1, -1])


@pytest.mark.parametrize(
    ("ids", "sentence"),
    [
        (("a", "b", "a"), "expected each id once, received 'a' again"),
        (("a", ""), "expected ids without line breaks, received ''"),
        (("a\nb",), r"expected ids without line breaks, received 'a\\nb'"),
    ],
)
def test_ids_that_no_table_can_hold_are_refused(ids, sentence):
    with pytest.raises(TfmmError, match=sentence):
        preprocessor(ids=ids)


def test_the_file_of_ids_lives_as_long_as_the_preprocessor():
    made = preprocessor()
    folder = Path(made._ids._folder)
    assert (folder / "product_ids.txt").exists()
    del made
    gc.collect()
    assert not folder.exists()


def test_a_product_reads_every_text_column_of_the_recipe():
    maker = preprocessor()
    whole = maker.product(
        {"title": strings("red"), "title_zh": strings("杯"), "image": strings("")}
    )
    known = [vocabulary()[i] for i in whole["text/ids"][0].numpy() if i]
    assert known == ["red", "[SEP]", "杯"]
    part = maker.product({"title_zh": strings("杯")})
    assert [vocabulary()[i] for i in part["text/ids"][0].numpy() if i] == ["杯"]
    assert "image/row" not in part


def test_what_a_tower_does_not_read_is_left_out():
    raw = {"text": strings("red"), "image": strings(PHOTO), "audio": strings(VOICE)}
    made = preprocessor('tower.query=["image"]', "tower.late.history=0.0").query(raw)
    assert set(made) == {"row", "image/row", "image/pixels"}
    made = preprocessor('image.handle=""', "tower.late.image=0.0").query(raw)
    assert not [name for name in made if name.startswith("image")]
    made = preprocessor().product({"title": strings("red"), "audio": strings(VOICE)})
    assert not [name for name in made if name.startswith("audio")]


def test_modalities_are_those_that_a_tower_reads_and_that_have_an_encoder():
    maker = preprocessor('audio.handle=""')
    assert maker.modalities("query") == ("text", "image", "history")
    assert maker.modalities("product") == ("text", "image")


def test_a_request_without_any_input_is_refused():
    with pytest.raises(TfmmError, match="raw: expected at least one input"):
        preprocessor().query({})


def test_a_waveform_front_gives_samples():
    made = preprocessor('audio.front="waveform"').query({"audio": strings("", VOICE)})
    assert made["audio/waveform"].shape == (1, 8000)
    np.testing.assert_array_equal(made["audio/row"], [1])
    assert "audio/log_mel" not in made


def test_the_feature_spec_tells_shapes_and_types_of_a_row():
    maker = preprocessor("text.ngram_buckets=0")
    spec = {name: (tuple(s.shape), s.dtype) for name, s in maker.feature_spec("query").items()}
    assert spec == {
        "text/ids": ((8,), tf.int32),
        "image/pixels": ((16, 16, 3), tf.uint8),
        "audio/log_mel": ((25, 16), tf.float32),
        "history": ((4,), tf.int32),
        "history/event": ((4,), tf.int32),
        "history/age": ((4,), tf.float32),
    }
    spec = {name: tuple(s.shape) for name, s in preprocessor().feature_spec("product").items()}
    assert spec == {"text/ids": (16,), "text/ngrams": (32,), "image/pixels": (16, 16, 3)}


def test_a_traced_function_has_static_shapes_but_for_the_rows():
    one = tf.TensorSpec([None], tf.string)
    raw = {"text": one, "image": one, "audio": one, "history": tf.TensorSpec([None, 7], tf.string)}
    raw |= {"history_event": tf.TensorSpec([None, 3], tf.string)}
    raw |= {"history_age_seconds": tf.TensorSpec([None, 7], tf.float32)}
    maker = preprocessor()
    traced = tf.function(maker.query).get_concrete_function(raw).structured_outputs
    for name, spec in maker.feature_spec("query").items():
        assert traced[name].shape.as_list() == [None, *spec.shape]
        assert traced[name].dtype == spec.dtype


class Words(tf.Module):
    """A preprocessing module of 6 tokens with a table of its own."""

    def __init__(self):
        super().__init__()
        keys = tf.constant(["red", "mug"])
        values = tf.constant([7, 8], tf.int64)
        self.table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(keys, values), default_value=1
        )

    def __call__(self, text):
        ids = self.table.lookup(tf.strings.split(text).to_tensor("", shape=[None, 6]))
        mask = tf.ones_like(ids)
        return {"input_word_ids": ids, "input_mask": mask, "input_type_ids": 0 * mask}


def test_a_preprocessing_module_gives_its_own_inputs():
    config = load_config(None, tiny_shop.SETTINGS)
    maker = Preprocessor(config, vocabulary=(), product_ids=IDS, text_preprocessing=Words())
    made = maker.query({"text": strings("", "red mug")})
    np.testing.assert_array_equal(made["text/row"], [1])
    np.testing.assert_array_equal(made["text/input_word_ids"][:, :2], [[7, 8]])
    spec = maker.feature_spec("product")
    assert {name: tuple(s.shape) for name, s in spec.items() if name.startswith("text")} == {
        "text/input_word_ids": (6,),
        "text/input_mask": (6,),
        "text/input_type_ids": (6,),
    }
