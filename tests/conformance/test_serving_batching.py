"""Merged calls: as alone, with the real server's parameters and texts, and each for itself."""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc import StatusCode
from serving_models import save_half_plus, save_zoo
from serving_process import Server, fails, predict_request, running

from tfmm.serving.batching_options import AUTOMATIC

import tensorflow as tf  # isort: skip

INVALID, FAILED = StatusCode.INVALID_ARGUMENT, StatusCode.FAILED_PRECONDITION
# One thread that waits half a second for company: calls sent together are merged.
PARAMETERS = """
max_batch_size { value: 8 }
batch_timeout_micros { value: 500000 }
max_enqueued_batches { value: 3 }
num_batch_threads { value: 1 }
allowed_batch_sizes: 4
allowed_batch_sizes: 8
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("batched")
    save_zoo(root / "zoo" / "1")
    save_half_plus(root / "half" / "1", 2.0)
    save_zoo(root / "own" / "1", by_tfmm=True)
    per_model = (
        "batch_timeout_micros { value: 500000 } num_batch_threads { value: 1 } "
        "pad_variable_length_inputs: true max_batch_size { value: 4 } "
        "max_execution_batch_size { value: 2 } enable_large_batch_splitting { value: true }"
    )
    (root / "own" / "1" / "batching_params.pbtxt").write_text(per_model)
    models = "\n".join(
        f'config {{ name: "{name}" base_path: "{root / name}" model_platform: "tensorflow" }}'
        for name in ("zoo", "half", "own")
    )
    (root / "models.pbtxt").write_text(f"model_config_list {{ {models} }}")
    (root / "batching.pbtxt").write_text(PARAMETERS)
    return root


@pytest.fixture(scope="module")
def batched(folder: Path) -> Iterator[Server]:
    with running(
        f"--model_config_file={folder / 'models.pbtxt'}",
        "--enable_batching",
        f"--batching_parameters_file={folder / 'batching.pbtxt'}",
        "--enable_per_model_batching_parameters",
        "--rest_api_timeout_in_ms=200",
    ) as server:
        yield server


@pytest.fixture(scope="module")
def automatic(folder: Path) -> Iterator[Server]:
    """A server without a flag about batching."""
    with running(f"--model_config_file={folder / 'models.pbtxt'}") as server:
        yield server


def together(server: Server, *requests) -> list:
    """Outputs of calls that are sent at the same time, or the code of one that failed."""
    calls = [server.prediction.Predict.future(request, 60) for request in requests]
    return [
        {name: tf.make_ndarray(proto) for name, proto in call.result().outputs.items()}
        if call.code() == StatusCode.OK
        else call.code()
        for call in calls
    ]


def search(model: str, *texts: str, k: int = 2):
    return predict_request(model, {"text": list(texts), "k": [k] * len(texts)})


@contextlib.contextmanager
def all_places_taken(server: Server) -> Iterator[None]:
    """What is called in this block waits behind runs that take all places for a while."""
    waiting = predict_request("own", {"x": [1.0]}, signature="wait")
    blockers = []
    for _ in range(AUTOMATIC.num_batch_threads):
        blockers.append(server.prediction.Predict.future(waiting, 3))
        time.sleep(0.2)
    yield
    assert {call.code() for call in blockers} == {StatusCode.DEADLINE_EXCEEDED}


def test_calls_are_merged_and_each_gets_its_rows(batched: Server):
    red, blue, both = together(
        batched, search("zoo", "red"), search("zoo", "blue"), search("zoo", "blue", "red")
    )
    assert red["id"].tolist() == [1]
    assert blue["id"].tolist() == [2]
    assert both["id"].tolist() == [2, 1]
    # Four rows ran: the three calls', which the allowed sizes needed not fill.
    assert {int(answer["rows"][0]) for answer in (red, blue, both)} == {4}


def test_a_batch_is_filled_up_to_an_allowed_size(batched: Server):
    answer = batched.predict("zoo", {"text": ["red"], "k": [2]})
    assert answer["rows"].tolist() == [4]
    assert answer["id"].tolist() == [1]


def test_a_bad_call_fails_alone(batched: Server):
    answers = together(
        batched, *(search("zoo", text) for text in ("red", "blue", "bad", "red", "green"))
    )
    assert answers[2] == INVALID
    ids = [answer["id"].tolist() for answer in answers if answer is not INVALID]
    assert ids == [[1], [2], [1], [-1]]


def test_a_call_of_a_wrong_type_or_shape_fails_alone(batched: Server):
    good = predict_request("half", {"x": [[2.0]]})
    wrong = predict_request("half", {"x": [["a"]]})
    wide = predict_request("half", {"x": [[2.0, 4.0]]})
    first, second, third = together(batched, good, wrong, wide)
    assert first["y"].tolist() == [[3.0]]
    assert second == INVALID
    assert third["y"].tolist() == [[3.0, 4.0]]


def test_a_call_larger_than_a_batch_is_refused(batched: Server):
    with fails(INVALID, "Task size 9 is larger than maximum input batch size 8"):
        batched.predict("half", {"x": [1.0] * 9})


def test_inputs_of_one_call_have_the_same_number_of_rows(batched: Server):
    with fails(INVALID, "Batching Run() input tensors must have equal 0th-dimension size"):
        batched.predict("zoo", {"text": ["a", "b"]})
    with fails(INVALID, "Batching Run() input tensors must have at least one dimension"):
        batched.predict("half", {"x": 1.0})


def test_outputs_have_the_batch_first(batched: Server):
    with fails(FAILED, "Batched output tensor has 0 dimensions"):
        batched.predict("zoo", {"x": [1.0, 2.0]}, signature="scalar")
    with fails(
        FAILED,
        "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes "
        "of the input tensors",
    ):
        batched.predict("zoo", {"x": [1.0, 2.0]}, signature="uneven")


def test_a_full_queue_refuses_at_once(batched: Server):
    # The signature has a queue of its own of 24 rows, and the only thread waits at the gate.
    full = predict_request("zoo", {"x": [1.0] * 8}, signature="wait")
    codes: queue.Queue[StatusCode] = queue.Queue()
    for _ in range(8):
        call = batched.prediction.Predict.future(full, 5)
        call.add_done_callback(lambda ended: codes.put(ended.code()))
    assert {codes.get(timeout=120) for _ in range(4)} == {StatusCode.UNAVAILABLE}
    assert {codes.get(timeout=120) for _ in range(4)} == {StatusCode.DEADLINE_EXCEEDED}
    assert batched.predict("half", {"x": [2.0]})["y"] == [3.0]


def test_time_that_passes_in_the_queue_is_resource_exhausted(batched: Server):
    start = time.monotonic()
    status, body = batched.post("/v1/models/half:predict", {"instances": [[1.0]]})
    assert time.monotonic() - start > 0.2
    assert (status, body) == (
        429,
        {"error": "Run() timeout exceeded while waiting in batching queue"},
    )


def test_a_models_own_parameters_pad_and_split(batched: Server):
    short = {"words": [["a"]], "numbers": [[1.0]]}
    long = {"words": [["b", "c"]], "numbers": [[1.0, 2.0]]}
    first, second = together(
        batched,
        predict_request("own", short, signature="two"),
        predict_request("own", long, signature="two"),
    )
    # The short row was filled with its own first element.
    assert first["joined"].tolist() == [b"a a"]
    assert second["joined"].tolist() == [b"b c"]
    assert first["rows"].tolist() == [2]
    # Three rows are more than one run of two takes, and fewer than a call of four may have.
    three = batched.predict("own", {"text": ["red", "blue", "red"], "k": [1, 1, 1]})
    assert three["id"].tolist() == [1, 2, 1]
    with fails(INVALID, "Task size 5 is larger than maximum input batch size 4"):
        batched.predict("own", {"text": ["red"] * 5, "k": [1] * 5})


def test_tfmms_own_models_are_merged_without_a_flag(automatic: Server):
    with all_places_taken(automatic):
        answers = together(automatic, *[search("own", "red")] * 6)
    assert [answer["id"].tolist() for answer in answers] == [[1]] * 6
    assert max(int(answer["rows"][0]) for answer in answers) > 1


def test_a_merged_reply_is_as_wide_as_it_would_be_alone(automatic: Server):
    with all_places_taken(automatic):
        answers = together(automatic, *(search("own", "red", k=k) for k in (1, 3, 1, 3)))
    assert [answer["rank"].tolist() for answer in answers] == [[[0]], [[0, 1, 2]]] * 2


def test_without_a_flag_a_call_that_cannot_be_merged_runs_alone(automatic: Server):
    answer = automatic.predict("own", {"text": ["red", "blue"]}, outputs=("id",))
    assert answer["id"].tolist() == [1, 2]
    assert automatic.predict("own", {"x": [1.0, 2.0]}, signature="scalar")["total"] == 3.0


def test_models_of_others_are_not_merged_without_a_flag(automatic: Server):
    answers = together(automatic, *[search("zoo", "red")] * 8)
    assert {int(answer["rows"][0]) for answer in answers} == {1}


def test_a_merged_call_keeps_its_deadline(automatic: Server):
    request = predict_request("own", {"x": [1.0]}, signature="wait")
    with pytest.raises(grpc.RpcError) as caught:
        automatic.prediction.Predict(request, 0.3)
    assert caught.value.code() == StatusCode.DEADLINE_EXCEEDED
    # The place is free again.
    assert automatic.predict("own", {"text": ["red"]}, timeout=20)["id"] == [1]
