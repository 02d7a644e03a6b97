"""What is kept of answers, for how long, and which calls are equal."""

import tfmm  # isort: skip # noqa: F401 - selects legacy Keras before TensorFlow

import numpy as np
import pytest

from tfmm.serving.replies import Replies, key_of
from tfmm.serving.session import Run


def run(**feeds) -> Run:
    return Run({name: np.array(value) for name, value in feeds.items()}, ["out"])


def words(*texts: bytes) -> np.ndarray:
    return np.array(texts, object)


def test_equal_calls_have_one_key():
    one = Run({"text": words(b"mug"), "k": np.array([3])}, ["out"])
    other = Run({"text": words(b"mug"), "k": np.array([3])}, ["out"], timeout_ms=9)
    assert key_of(one) == key_of(other) is not None


@pytest.mark.parametrize(
    "other",
    [
        Run({"text": words(b"cup"), "k": np.array([3])}, ["out"]),
        Run({"text": words(b"mug", b"mug"), "k": np.array([3])}, ["out"]),
        Run({"text": words(b"mug").reshape(1, 1), "k": np.array([3])}, ["out"]),
        Run({"text": words(b"mug"), "k": np.array([4])}, ["out"]),
        Run({"text": words(b"mug"), "k": np.array([3], np.int32)}, ["out"]),
        Run({"text": words(b"mug"), "k": np.array([3])}, ["out", "score"]),
        Run({"title": words(b"mug"), "k": np.array([3])}, ["out"]),
    ],
)
def test_calls_that_differ_have_other_keys(other: Run):
    assert key_of(Run({"text": words(b"mug"), "k": np.array([3])}, ["out"])) != key_of(other)


@pytest.mark.parametrize("value", [words(b"x" * 5_000), np.zeros(2_000, np.float32)])
def test_long_calls_are_not_kept(value):
    assert key_of(Run({"image": value}, ["out"])) is None


def test_what_is_kept_is_a_copy_that_nobody_can_change():
    replies, batch = Replies(2**20), np.arange(6.0)
    replies.keep("a", [batch[:2]])
    batch[0] = 9
    (kept,) = replies.find("a")
    assert kept.tolist() == [0, 1]
    assert kept.base is None
    with pytest.raises(ValueError, match="read-only"):
        kept[0] = 1


def test_the_one_that_was_used_longest_ago_goes_first():
    replies = Replies(3 * 20_000)
    for key in "abc":
        replies.keep(key, [np.zeros(1_500)])
    assert replies.find("a") is not None
    replies.keep("d", [np.zeros(1_500)])
    assert [replies.find(key) is not None for key in "abcd"] == [True, False, True, True]


def test_what_is_larger_than_all_the_memory_is_not_kept():
    replies = Replies(20_000)
    replies.keep("small", [np.zeros(10)])
    replies.keep("large", [words(b"x" * 30_000)])
    assert replies.find("large") is None
    assert replies.find("small") is not None
