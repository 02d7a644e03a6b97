"""Requests that nobody would write: each gets a clear status, and the server goes on."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import grpc
import pytest
from grpc import StatusCode
from nonsense import PHOTOS, SOUNDS, damaged, huge_photo, odd_sound, peak_mb
from serving_process import predict_request
from tensorflow_serving.apis import predict_pb2

import tensorflow as tf  # isort: skip

# The session server works on 2 calls and lets 10 in; more would be told that it is full.
IN_FLIGHT = 8
LIMIT_S = 120
PREDICT = "/tensorflow.serving.PredictionService/Predict"
METHODS = [
    *(
        f"/tensorflow.serving.PredictionService/{name}"
        for name in ("Predict", "Classify", "Regress", "MultiInference", "GetModelMetadata")
    ),
    "/tensorflow.serving.ModelService/GetModelStatus",
]
# grpc's own answer to bytes that are no message.
UNREADABLE = (StatusCode.INTERNAL, "Exception deserializing request!")
CLEAR = {
    StatusCode.INVALID_ARGUMENT,
    StatusCode.FAILED_PRECONDITION,
    StatusCode.NOT_FOUND,
    StatusCode.OUT_OF_RANGE,
    StatusCode.UNIMPLEMENTED,
}
INPUTS = (
    "text", "image", "audio", "history", "history_event", "history_age_seconds", "exclude", "hour",
    "place", "category", "brand", "min_price", "max_price", "in_stock_only", "max_per_category",
    "k", "colour", "",
)  # fmt: skip
SIGNATURES = (
    "", "search", "search_text", "search_image", "search_audio", "recommend", "similar",
    "embed_query", "embed_product", "nothing", "__saved_model_init_op",
)  # fmt: skip
SIZES = (0, 1, 1, 2, 3, 4, 5, 7, -1, 1 << 20, 1 << 31, 1 << 40, (1 << 63) - 1)


@dataclass(frozen=True)
class Bad:
    """One call: what kind of nonsense it is, its method and its bytes."""

    kind: str
    method: str
    content: bytes


def nonsense(count: int, seed: int = 0) -> Iterator[Bad]:
    """Always the same calls for the same seed."""
    chance = random.Random(seed)
    kinds: list[Callable[[random.Random], Bad]] = [
        random_bytes, mutated, mutated, wrong_spec, wrong_tensor, wrong_tensor, words, numbers,
        broken_photo, huge, broken_sound, odd,
    ]  # fmt: skip
    for number in range(count):
        yield kinds[number % len(kinds)](chance)


def predict(kind: str, inputs: dict[str, object], signature: str = "") -> Bad:
    request = predict_request("tiny", inputs, signature=signature)
    return Bad(kind, PREDICT, request.SerializeToString())


def random_bytes(chance: random.Random) -> Bad:
    content = chance.randbytes(chance.choice((0, 1, 5, 50, 500)))
    return Bad("random bytes", chance.choice(METHODS), content)


def mutated(chance: random.Random) -> Bad:
    """A good request with some bytes changed, lost or doubled."""
    inputs = {"text": ["red mug"], "k": [3], "min_price": [1.0], "exclude": [["p01", "", ""]]}
    content = predict("", inputs).content
    return Bad("mutated", PREDICT, damaged(chance, content))


def words(chance: random.Random) -> Bad:
    text: list[bytes] = [
        chance.randbytes(chance.randrange(40)),
        b"\xff\xfe red \xc3\x28 mug \xed\xa0\x80",
        "".join(chr(chance.randrange(1, 0xD800)) for _ in range(30)).encode(),
        b"\x00" * 20,
        b"red " * chance.randrange(4_000),
        "\u202e\U0010ffff\ufeff\u0301".encode() * 50,
    ]
    name = chance.choice(("text", "place", "history", "exclude"))
    value = chance.choice(text)
    width = {"history": 4, "exclude": 3}.get(name)
    return predict("words", {name: [[value] * width] if width else [value]})


def image_call(chance: random.Random, kind: str, content: bytes) -> Bad:
    """A photo alone, or beside good ones."""
    rows = [content] if chance.random() < 0.7 else [PHOTOS[0], content, b""]
    return predict(kind, {"image": rows}, chance.choice(("", "search_image", "embed_query")))


def broken_photo(chance: random.Random) -> Bad:
    return image_call(chance, "broken photo", damaged(chance, chance.choice(PHOTOS)))


def huge(chance: random.Random) -> Bad:
    return image_call(chance, "huge photo", huge_photo(chance))


def sound_call(chance: random.Random, kind: str, content: bytes) -> Bad:
    rows = [content] if chance.random() < 0.7 else [content, SOUNDS[0]]
    return predict(kind, {"audio": rows}, chance.choice(("", "search_audio", "embed_query")))


def broken_sound(chance: random.Random) -> Bad:
    return sound_call(chance, "broken sound", damaged(chance, chance.choice(SOUNDS)))


def odd(chance: random.Random) -> Bad:
    return sound_call(chance, "odd sound", odd_sound(chance))


def wrong_tensor(chance: random.Random) -> Bad:
    """Any type, any shape, any number of values, in any input of any signature."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "tiny"
    request.model_spec.signature_name = chance.choice(SIGNATURES)
    for name in chance.sample(INPUTS, chance.randint(1, 3)):
        proto = request.inputs[name]
        proto.dtype = chance.choice(
            (0, 1, 2, 3, 4, 7, 7, 7, 8, 9, 10, 14, 19, 20, 21, 23, 101, 999)
        )
        for _ in range(chance.choice((0, 1, 1, 2, 2, 3, 40))):
            proto.tensor_shape.dim.add().size = chance.choice(SIZES)
        proto.tensor_shape.unknown_rank = chance.random() < 0.05
        count = chance.choice((0, 1, 2, 5))
        proto.string_val.extend([chance.randbytes(3) for _ in range(count)])
        proto.float_val.extend([chance.choice((0.0, float("nan"), float("inf")))] * count)
        proto.int_val.extend([chance.choice((0, 1, -1, (1 << 31) - 1))] * count)
        if chance.random() < 0.1:
            proto.tensor_content = chance.randbytes(chance.choice((1, 4, 8, 16)))
    return Bad("wrong tensor", PREDICT, request.SerializeToString())


def numbers(chance: random.Random) -> Bad:
    """Huge and negative k, ranges of NaN, rows that do not fit together, unknown facets."""
    odd = (float("nan"), float("inf"), -float("inf"), 1e38, -0.0)
    rows = chance.choice((1, 1, 2, 5))
    inputs: dict[str, object] = {
        "k": tf.constant(
            [chance.choice((0, 1, 20, 21, 1000, -1, (1 << 31) - 1, -(1 << 31)))] * rows, tf.int32
        ),
        "min_price": [chance.choice(odd)] * chance.choice((1, rows)),
        "max_price": [chance.choice(odd)],
        "category": [["\U0001f600" * 9, "no such"]],
        "text": ["red"] * chance.choice((1, rows, 3)),
        "max_per_brand": tf.constant([chance.choice((-1, 0, (1 << 31) - 1))], tf.int32),
    }
    held = chance.sample(sorted(inputs), chance.randint(1, 4))
    return predict("numbers", {name: inputs[name] for name in held})


def wrong_spec(chance: random.Random) -> Bad:
    request = predict_request("tiny", {"text": ["red"]})
    match chance.randrange(5):
        case 0:
            request.model_spec.name = chance.choice(("", "Tiny", "tiny/../half", "\u202e"))
        case 1:
            request.model_spec.version.value = chance.choice((-1, 0, 2, (1 << 63) - 1))
        case 2:
            request.model_spec.version_label = chance.choice(("", "stable", "x" * 10_000))
        case 3:
            request.model_spec.signature_name = chance.choice(("no", "x" * 100_000, "\u202e"))
        case 4:
            request.output_filter.extend(
                chance.choice((["no"], ["score"] * 2, [""], ["x" * 9_999]))
            )
    return Bad("wrong spec", PREDICT, request.SerializeToString())


def status_of(call: grpc.Future) -> tuple[StatusCode, str]:
    error = call.exception()
    return (StatusCode.OK, "") if error is None else (error.code(), error.details())


@pytest.mark.parametrize("count", [600, pytest.param(20_000, marks=pytest.mark.slow)])
def test_nonsense_gets_a_clear_status_and_the_server_goes_on(server, count: int):
    good = {"text": ["red mug", "blue lamp"], "image": [PHOTOS[0]], "audio": [SOUNDS[0]], "k": [5]}
    before = server.predict("tiny", good)
    memory_mb = peak_mb(server.process.pid)
    calls = {
        method: server.channel.unary_unary(method, lambda content: content, lambda content: content)
        for method in METHODS
    }
    waiting: deque[tuple[Bad, grpc.Future]] = deque()
    seen: Counter[tuple[str, str]] = Counter()
    faults: list[str] = []

    def take() -> None:
        bad, call = waiting.popleft()
        code, details = status_of(call)
        seen[bad.kind, code.name] += 1
        is_clear = code == StatusCode.OK or (code in CLEAR and bool(details))
        if not is_clear and (code, details) != UNREADABLE:
            faults.append(f"{bad.kind}: {code.name}: {details}\n{bad.content[:400]!r}")

    for bad in nonsense(count, seed=count):
        if len(waiting) == IN_FLIGHT:
            take()
        waiting.append((bad, calls[bad.method].future(bad.content, timeout=LIMIT_S)))
    while waiting:
        take()
    assert not faults, f"{len(faults)} of {count}, the first: " + "\n".join(faults[:5])
    assert server.process.poll() is None
    assert sum(seen.values()) == count
    # Some of it is harmless, most of it is not: otherwise these calls try nothing.
    refused = sum(number for (_, code), number in seen.items() if code != "OK")
    assert count // 3 < refused < count, seen
    assert peak_mb(server.process.pid) - memory_mb < 1024
    after = server.predict("tiny", good)
    for name, value in before.items():
        if value.dtype == object:
            assert (value == after[name]).all()
        else:
            assert abs(value - after[name]).max() <= 1e-5
