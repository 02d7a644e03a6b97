import tfmm  # isort: skip # noqa: F401 - selects legacy Keras before TensorFlow

import functools

import numpy as np
import pytest
import tensorflow as tf

from tfmm.config import TextConfig
from tfmm.errors import TfmmError
from tfmm.features.text import RESERVED, TextFeatures, fair_limits, learn_vocabulary

ENGLISH = ["Red cotton dress", "Blue denim jacket, size M", "Crème brûlée set", "T-shirt 2XL 😍"]
CHINESE = ["红色连衣裙", "蓝色牛仔外套 大码", "法式焦糖布丁套装❤️"]


@functools.cache
def vocabulary(case="fold", size=400):
    return learn_vocabulary((ENGLISH + CHINESE) * 5, size=size, case=case)


def features(case="fold", query=12, product=16, buckets=64):
    config = TextConfig(
        case=case, max_query_tokens=query, max_product_tokens=product, ngram_buckets=buckets
    )
    return TextFeatures(config, vocabulary(case))


def pieces(ids, case="fold"):
    known = vocabulary(case)
    return [known[i] for i in np.asarray(ids) if i]


def query_pieces(text, case="fold"):
    made = features(case).query(tf.constant([text]))
    return pieces(made["ids"][0], case)


def test_the_vocabulary_begins_with_the_reserved_pieces_and_repeats_none():
    learnt = vocabulary()
    assert tuple(learnt[:5]) == ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    assert len(set(learnt)) == len(learnt)


def test_learning_twice_gives_the_same_vocabulary():
    texts = ENGLISH + CHINESE
    first, second = (learn_vocabulary(texts, size=300, case="keep") for _ in range(2))
    assert first == second


def test_a_vocabulary_of_latin_words_keeps_to_its_size():
    words = [f"{a}{b}ish {b}{a}ly" for a in "bcdfgh" for b in ("all", "ent", "ist", "oom")] * 5
    assert 150 < len(learn_vocabulary(words, size=250, case="fold")) <= 250


def test_a_vocabulary_is_learnt_of_no_text_at_all():
    learnt = learn_vocabulary([], size=100, case="fold")
    assert tuple(learnt[:5]) == RESERVED
    made = TextFeatures(TextConfig(), learnt).query(tf.constant(["red"]))
    assert [learnt[i] for i in made["ids"][0].numpy() if i] == ["r", "##e", "##d"]


def test_whole_words_and_every_character_of_the_corpus_are_known():
    learnt = set(vocabulary())
    assert {"red", "dress", "cotton", "2xl"} <= learnt
    assert {"红", "裙", "糖", "😍", "❤", ","} <= learnt


def test_each_han_character_is_a_token_of_its_own():
    assert query_pieces("红色dress连衣裙") == ["红", "色", "dress", "连", "衣", "裙"]


def test_emoji_are_tokens_and_take_nothing_from_the_word_beside_them():
    assert query_pieces("dress😍❤️") == ["dress", "😍", "❤"]


def test_full_width_letters_and_ligatures_are_the_plain_ones():
    assert query_pieces("ｒｅｄ ｄｒｅｓｓ") == ["red", "dress"]


def test_folding_ignores_case_and_accents():
    assert query_pieces("CREME BRULÉE") == query_pieces("crème brûlée")


def test_keeping_case_tells_words_apart():
    assert query_pieces("Red", "keep") != query_pieces("red", "keep")
    assert query_pieces("Crème", "keep") == ["Crème"]
    assert "Creme" not in vocabulary("keep")


def test_nul_and_other_control_characters_separate_words():
    assert query_pieces(b"red\x00cotton\x1fdress\xc2\x85jacket") == [
        "red", "cotton", "dress", "jacket",
    ]  # fmt: skip


def test_bytes_that_are_not_utf8_do_not_hide_the_rest():
    assert query_pieces(b"red \xff\xfe dress") == ["red", "dress"]


def test_invisible_characters_do_not_split_words():
    assert query_pieces("dr\u00adess co\u200btton") == ["dress", "cotton"]


def test_text_that_spells_a_reserved_piece_is_only_text():
    ids = features().query(tf.constant(["[SEP] [PAD] [MASK]"]))["ids"][0].numpy()
    assert not {0, 2, 3, 4} & set(ids[ids != 0])
    assert query_pieces("[SEP]")[0] == "["


def test_characters_of_the_national_standard_are_known_beyond_the_corpus():
    assert "[UNK]" not in query_pieces("鳕鱼蝎子")


def test_a_corpus_without_han_characters_is_not_given_any():
    learnt = learn_vocabulary(ENGLISH, size=200, case="fold")
    assert not [piece for piece in learnt if "\u4e00" <= piece <= "\u9fff"]


def test_held_out_chinese_titles_have_hardly_an_unknown_token():
    rng = np.random.default_rng(0)
    # The 3,000 characters from which titles draw, the frequent ones far oftener, as in life.
    drawn = (3000 * rng.random((900, 25)) ** 3).astype(int)
    level_one = [bytes([0xB0 + n // 94, 0xA1 + n % 94]).decode("gb2312") for n in range(3000)]
    titles = ["".join(level_one[n] for n in row) for row in drawn]
    learnt = learn_vocabulary(titles[:300], size=2000, case="fold")
    unseen = set("".join(titles[300:])) - set("".join(titles[:300]))
    assert len(unseen) > 30
    config = TextConfig(max_query_tokens=40)
    ids = TextFeatures(config, learnt).query(tf.constant(titles[300:]))["ids"].numpy()
    assert (ids == RESERVED.index("[UNK]")).sum() <= 0.001 * (ids != 0).sum()


def test_a_row_is_present_when_it_has_a_token():
    made = features().query(tf.constant(["red", "", "   ", b"\x00\x01", "\u200b", "?", "红"]))
    np.testing.assert_array_equal(made["present"], [True, False, False, False, False, True, True])
    assert not made["ids"].numpy()[1:5].any()
    assert not made["ngrams"].numpy()[1:5].any()


def test_widths_are_static_and_long_queries_are_cut():
    text = features(query=5)
    made = text.query(tf.constant(["red cotton dress blue denim jacket", "red"]))
    assert made["ids"].shape == (2, 5)
    assert pieces(made["ids"][0]) == ["red", "cotton", "dress", "blue", "denim"]
    concrete = tf.function(text.query).get_concrete_function(tf.TensorSpec([None], tf.string))
    assert concrete.structured_outputs["ids"].shape.as_list() == [None, 5]
    assert concrete.structured_outputs["ngrams"].shape.as_list() == [None, 10]


def test_fields_of_a_product_are_joined_by_separators_and_absent_ones_leave_none():
    made = features().product(
        [tf.constant(v) for v in (["red dress", "red"], ["", "blue"], ["红", ""])]
    )
    assert pieces(made["ids"][0]) == ["red", "dress", "[SEP]", "红"]
    assert pieces(made["ids"][1]) == ["red", "[SEP]", "blue"]


def test_a_long_title_does_not_push_the_chinese_title_out():
    made = features(product=8).product(
        [tf.constant(["red dress " * 9]), tf.constant(["连衣裙外套"])]
    )
    assert pieces(made["ids"][0]) == ["red", "dress"] * 2 + ["[SEP]", "连", "衣", "裙"]


def test_a_short_field_leaves_its_share_to_the_long_one():
    made = features(product=8).product([tf.constant(["red dress " * 9]), tf.constant(["裙"])])
    assert pieces(made["ids"][0]) == ["red", "dress"] * 3 + ["[SEP]", "裙"]


def naive_limits(lengths, budget):
    """Deals the budget out one by one to the fields that still want."""
    limits = [0] * len(lengths)
    while budget and any(a < b for a, b in zip(limits, lengths, strict=True)):
        for place, wanted in enumerate(lengths):
            if limits[place] < wanted and budget:
                limits[place] += 1
                budget -= 1
    return limits


@pytest.mark.parametrize("budget", [0, 1, 5, 12, 100])
def test_fair_limits_are_those_of_dealing_one_by_one(budget):
    lengths = np.random.default_rng(1).integers(0, 9, [40, 4]).astype(np.int32)
    dealt = np.array([naive_limits(row, budget) for row in lengths])
    limits = fair_limits(tf.constant(lengths), budget).numpy()
    # Which of several equally long fields gets the odd item is open.
    np.testing.assert_array_equal(np.sort(limits, axis=1), np.sort(dealt, axis=1))
    assert (limits <= lengths).all()


def ngrams_of(text, buckets=10_000):
    config = TextConfig(ngram_buckets=buckets)
    made = TextFeatures(config, vocabulary()).query(tf.constant([text]))["ngrams"][0].numpy()
    return set(made[made != 0])


def bucket(gram, buckets=10_000):
    return int(tf.strings.to_hash_bucket_fast([gram], buckets - 1)[0]) + 1


def test_ngrams_are_trigrams_of_marked_words_and_bigrams_of_han_runs():
    grams = ["<re", "red", "ed>", "连衣", "衣裙", "<a>", "红"]
    assert ngrams_of("Red连衣裙, a 红!") == {bucket(gram) for gram in grams}


def test_a_misspelt_word_shares_ngrams_with_the_word():
    assert len(ngrams_of("jackett") & ngrams_of("jacket")) >= 4
    assert not ngrams_of("jacket") & ngrams_of("dress")


def test_ngram_buckets_leave_0_to_padding_and_stay_below_their_number():
    words = [f"{a}{b}{c}" for a in "abcdef" for b in "ghijkl" for c in "mnopqr"]
    made = features(buckets=8).query(tf.constant(words))["ngrams"].numpy()
    assert set(np.unique(made)) == set(range(8))
    assert (made[:, :3] > 0).all()


def test_without_buckets_there_are_no_ngrams():
    assert set(features(buckets=0).query(tf.constant(["red"]))) == {"ids", "present"}


def test_a_vocabulary_of_another_kind_is_refused():
    with pytest.raises(TfmmError, match=r"vocabulary: expected \[PAD\].*received red, dress"):
        TextFeatures(TextConfig(), ["red", "dress"])


class Characters(tf.Module):
    """A preprocessing module with 20 characters for tokens."""

    def __call__(self, text):
        codes = tf.strings.unicode_decode(text, "UTF-8").to_tensor(0, shape=[None, 20])
        mask = tf.cast(codes != 0, tf.int64)
        return {"input_word_ids": codes, "input_mask": mask, "input_type_ids": 0 * mask}


def preprocessed(fields, product=4):
    config = TextConfig(max_product_tokens=product)
    return TextFeatures(config, [], Characters()).product([tf.constant(f) for f in fields])


def test_a_preprocessing_module_takes_the_place_of_the_vocabulary():
    made = preprocessed([["Red", " \x00"], ["红裙", ""]])
    assert set(made) == {"input_word_ids", "input_mask", "input_type_ids", "present"}
    assert made["input_word_ids"].dtype == made["input_mask"].dtype == tf.int32
    assert "".join(map(chr, made["input_word_ids"].numpy()[0])).rstrip("\0") == "Red 红裙"
    np.testing.assert_array_equal(made["present"], [True, False])


def test_fields_before_a_preprocessing_module_share_its_characters_fairly():
    made = preprocessed([["x" * 50], ["红" * 6]])
    text = "".join(map(chr, made["input_word_ids"].numpy()[0])).rstrip("\0")
    assert text == "x" * 10 + " " + "红" * 6
