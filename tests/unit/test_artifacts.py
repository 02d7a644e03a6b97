"""Version folders, publication, loading, and what a call by name does to its inputs."""

import tfmm  # isort: skip # noqa: F401 - selects legacy Keras before TensorFlow

import json
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfmm import artifacts
from tfmm.errors import TfmmError
from tfmm.signatures import Input, signature

INPUTS = [
    Input("text", tf.string, ""),
    Input("history", tf.string, "", 3),
    Input("exclude", tf.string, "", 2),
    Input("min_price", tf.float32, -1.0),
    Input("k", tf.int32, 10),
]


def save(folder: Path) -> None:
    def refuse_bad(given):
        fine = tf.reduce_all(given["text"] != "bad")
        with tf.control_dependencies([tf.debugging.Assert(fine, ["text: expected good"])]):
            return {name: tf.identity(value) for name, value in given.items()}

    echo = signature(refuse_bad, INPUTS)
    tf.saved_model.save(tf.Module(), str(folder), signatures={"serving_default": echo})


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Nothing here is random, and seeding makes TensorFlow drop every function it has optimised."""


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("echo")
    save(folder / "1")
    return artifacts.load_model(folder).signatures["serving_default"]


def fill(folder: Path) -> None:
    (folder / "variables").mkdir()
    (folder / "variables" / "data").write_bytes(b"weights")
    (folder / "saved_model.pb").write_bytes(b"graph")


def test_versions_count_up_from_one(tmp_path: Path):
    model = tmp_path / "shop"
    for number in (1, 2, 3):
        with artifacts.staging(model) as staged:
            fill(staged)
            assert artifacts.publish(staged) == model / str(number)
    assert artifacts.versions(model) == [1, 2, 3]
    assert sorted(os.listdir(model)) == ["1", "2", "3"]
    assert artifacts.latest_version(model) == model / "3"
    assert artifacts.latest_version(model / "2") == model / "2"


def test_the_next_version_follows_the_highest_number_even_an_unfinished_one(tmp_path: Path):
    (tmp_path / "shop" / "00000041").mkdir(parents=True)
    with artifacts.staging(tmp_path / "shop") as staged:
        fill(staged)
        assert artifacts.publish(staged).name == "42"


def test_version_10_is_newer_than_version_9(tmp_path: Path):
    for name in ("9", "10"):
        (tmp_path / name).mkdir()
        fill(tmp_path / name)
    assert artifacts.latest_version(tmp_path).name == "10"


def test_a_failed_export_leaves_nothing(tmp_path: Path):
    def fail(model: Path) -> None:
        with artifacts.staging(model) as staged:
            fill(staged)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail(tmp_path / "shop")
    assert os.listdir(tmp_path / "shop") == []


def test_a_server_never_sees_a_number_before_publication(tmp_path: Path):
    with artifacts.staging(tmp_path / "shop") as staged:
        fill(staged)
        assert not any(name.isdecimal() for name in os.listdir(tmp_path / "shop"))
        assert artifacts.versions(tmp_path / "shop") == []


def _die_while_staging(model: Path) -> None:
    with artifacts.staging(model) as staged:
        fill(staged)
        os.kill(os.getpid(), 9)


def test_what_a_killed_export_left_is_removed_by_the_next(tmp_path: Path):
    model = tmp_path / "shop"
    child = multiprocessing.get_context("fork").Process(target=_die_while_staging, args=(model,))
    child.start()
    child.join()
    assert len(os.listdir(model)) == 1
    with artifacts.staging(model) as staged:
        assert os.listdir(model) == [staged.name]


def test_the_folder_of_an_export_at_work_is_left_alone(tmp_path: Path):
    with artifacts.staging(tmp_path) as first, artifacts.staging(tmp_path) as second:
        fill(first)
        fill(second)
        assert artifacts.publish(second).name == "1"
        assert artifacts.publish(first).name == "2"


def _publish_once(model: Path) -> None:
    with artifacts.staging(model) as staged:
        fill(staged)
        (staged / "owner").write_text(str(os.getpid()))
        artifacts.publish(staged)


def test_exports_at_the_same_time_get_different_versions(tmp_path: Path):
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_publish_once, args=(tmp_path,)) for _ in range(6)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert artifacts.versions(tmp_path) == [1, 2, 3, 4, 5, 6]
    owners = {(tmp_path / str(n) / "owner").read_text() for n in range(1, 7)}
    assert owners == {str(child.pid) for child in children}


def test_a_manifest_reads_back_and_refuses_nan(tmp_path: Path):
    artifacts.write_manifest(tmp_path, {"name": "红", "metrics": {"recall@10": 0.5}})
    assert artifacts.read_manifest(tmp_path) == {"name": "红", "metrics": {"recall@10": 0.5}}
    assert json.loads((tmp_path / "assets.extra" / "manifest.json").read_text("utf-8"))
    with pytest.raises(ValueError, match="JSON"):
        artifacts.write_manifest(tmp_path, {"recall": float("nan")})


@pytest.mark.parametrize("content", [None, b"not a protocol buffer"])
def test_what_is_no_saved_model_is_refused_with_a_sentence(tmp_path: Path, content):
    if content is not None:
        (tmp_path / "saved_model.pb").write_bytes(content)
    with pytest.raises(TfmmError, match=r"expected a SavedModel"):
        artifacts.load_model(tmp_path)


def test_absent_inputs_take_the_defaults_of_the_signature(echo):
    answer = echo()
    assert answer["text"].tolist() == [b""]
    assert answer["k"].tolist() == [10]
    assert answer["history"].tolist() == [[b""] * 3]
    assert echo(text=None, k=[3])["k"].tolist() == [3]


def test_a_scalar_is_one_row_and_a_flat_list_one_row_of_values(echo):
    answer = echo(text="red", k=7, history=["a", "b"], exclude="x", min_price=2)
    assert answer["text"].tolist() == [b"red"]
    assert answer["k"].tolist() == [7]
    assert answer["history"].tolist() == [[b"", b"a", b"b"]]
    assert answer["exclude"].tolist() == [[b"x", b""]]
    assert answer["min_price"].tolist() == [2.0]


def test_history_is_padded_on_the_left_and_keeps_the_newest(echo):
    answer = echo(history=[["a"], ["a", "b", "c", "d"], []])
    assert answer["history"].tolist() == [[b"", b"", b"a"], [b"b", b"c", b"d"], [b""] * 3]
    assert len(answer["text"]) == 3


@pytest.mark.parametrize(
    "history",
    [
        np.array([["a", "b", "c"]]),
        np.array([[b"a", b"b", b"c"]], dtype=object),
        tf.constant([["a", "b", "c"]]),
        [("a", "b", "c")],
    ],
)
def test_arrays_and_tensors_are_taken_as_they_are(echo, history):
    assert echo(history=history)["history"].tolist() == [[b"a", b"b", b"c"]]


def test_bytes_that_are_no_text_pass_unchanged(echo):
    assert echo(text=[b"\xff\xd8\x00"])["text"].tolist() == [b"\xff\xd8\x00"]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"colour": ["red"]}, "expected inputs among exclude, history, k, .* received colour"),
        ({"exclude": [["a", "b", "c"]]}, "exclude: expected at most 2 values a row, received 3"),
        ({"k": ["many"]}, r"k: expected int32 \[B\], received \['many'\]"),
        ({"text": ["a", "b", "c"], "k": [1, 2]}, "^k: expected 1 or 3 rows, received 2$"),
        ({"text": "bad"}, "^text: expected good$"),
    ],
)
def test_a_bad_input_is_refused_with_one_sentence(echo, given, sentence):
    with pytest.raises(TfmmError, match=sentence):
        echo(**given)


def test_ops_are_those_of_graph_and_functions(tmp_path: Path):
    save(tmp_path / "1")
    ops = artifacts.ops_of(tmp_path)
    assert {"Assert", "BroadcastTo", "StatefulPartitionedCall"} <= ops
    assert not any(op.startswith("__inference") for op in ops)
    assert artifacts.missing_from_stock(tmp_path) == []


def test_ops_that_the_stock_server_lacks_are_found(tmp_path: Path):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def python(x):
        return {"y": tf.numpy_function(lambda v: v, [x], tf.float32)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def compiled(x):
        return {"y": tf.function(lambda v: v * 2.0, jit_compile=True)(x)}

    tf.saved_model.save(tf.Module(), str(tmp_path / "1"), signatures={"a": python, "b": compiled})
    missing = artifacts.missing_from_stock(tmp_path)
    assert "PyFunc" in missing
    assert any(name.startswith("jit_compile:") for name in missing)


def test_the_stock_list_has_core_and_text_ops_but_none_of_scann_or_io():
    assert {"MatMulV2", "TopKV2"} & artifacts.STOCK_OPS
    assert any(op.startswith("TFText>") for op in artifacts.STOCK_OPS)
    assert not any(op.startswith(("Scann>", "IO>")) for op in artifacts.STOCK_OPS)
