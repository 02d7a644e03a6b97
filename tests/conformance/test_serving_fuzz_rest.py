"""HTTP requests that nobody would write: each gets a clear status, and the server goes on."""

from __future__ import annotations

import base64
import gzip
import json
import random
import re
import socket
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from nonsense import PHOTOS, SOUNDS, damaged, huge_photo, odd_sound, peak_mb

LIMIT_S = 120
AT_A_TIME = 8
MODELS = ("tiny", "half", "zoo", "m")
INPUTS = (
    "text", "image", "audio", "history", "exclude", "k", "min_price", "category", "in_stock_only",
    "words", "numbers", "x", "inputs", "", "\udcff", "b64",
)  # fmt: skip
SIGNATURES = (
    "search", "search_text", "search_image", "search_audio", "recommend", "similar", "embed_query",
    "two", "types", "numbers", "regress_x_to_y", "classify_x_to_y", "serving_default", "", "zz",
    "__saved_model_init_op",
)  # fmt: skip
CLEAR = {200, 400, 404, 413, 414, 431, 501, 505}
STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) [^\r\n]*\r\n(.*?)\r\n\r\n(.*)", re.DOTALL)
GOOD = b'{"signature_name": "search_text", "instances": ["red mug", "blue lamp"]}'
# 400 MB of zeros in as many kilobytes.
BOMB = gzip.compress(bytes(400 << 20), 9)


@dataclass(frozen=True)
class Bad:
    """One request: what kind of nonsense it is, and its bytes."""

    kind: str
    content: bytes


def nonsense(count: int, seed: int) -> Iterator[Bad]:
    """Always the same requests for the same seed."""
    chance = random.Random(seed)
    kinds: list[Callable[[random.Random], Bad]] = [
        random_bytes, random_json, random_json, broken_json, nested, numbers, media, media,
        examples, packed, wrong_length, chunks, odd_path, odd_method, odd_headers, columns,
    ]  # fmt: skip
    for number in range(count):
        yield kinds[number % len(kinds)](chance)


def request(
    body: bytes, path: str | bytes = "", method: str = "POST", headers: tuple[bytes, ...] = ()
) -> bytes:
    """A request with the right length, and more headers."""
    path = path or "/v1/models/tiny:predict"
    where = path if isinstance(path, bytes) else path.encode("utf-8", "surrogateescape")
    lines = [
        method.encode() + b" " + where + b" HTTP/1.1",
        b"Host: localhost",
        b"Content-Length: %d" % len(body),
        b"Connection: close",
        *headers,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def as_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogateescape")


def a_path(chance: random.Random) -> str:
    method = chance.choice(("predict", "predict", "predict", "classify", "regress"))
    return f"/v1/models/{chance.choice(MODELS)}:{method}"


def random_bytes(chance: random.Random) -> Bad:
    content = chance.randbytes(chance.choice((1, 5, 50, 500, 5000)))
    if chance.random() < 0.5:
        return Bad("random body", request(content, a_path(chance)))
    return Bad("random bytes", content + b"\r\n\r\n")


def value(chance: random.Random, depth: int = 0) -> Any:
    """Any JSON value."""
    kinds = 6 if depth > 4 else 9
    match chance.randrange(kinds):
        case 0:
            return chance.choice((None, True, False))
        case 1:
            return chance.choice((0, 1, -1, 7, 2**31, -(2**63), 2**64, 10**30))
        case 2:
            return chance.choice((0.5, -0.0, 1e308, 1e-320, float("nan"), float("inf")))
        case 3 | 4:
            letters = ("red", "", "\udcff\udc00", "\ud83d\ude00\x00", "x" * 3000, "\u202e", "*")
            return chance.choice(letters)
        case 5:
            return {"b64": chance.choice(("", "AAAA", "====", "*", "\u00e9", "A", "AAAA\n"))}
        case 6:
            size = chance.choice((0, 1, 2, 3, 40))
            return [value(chance, depth + 1) for _ in range(size)]
        case 7:
            # A rectangle, as a tensor is.
            one = value(chance, depth + 2)
            return [[one] * chance.choice((1, 3, 4))] * chance.choice((1, 2, 5))
        case _:
            names = chance.sample(INPUTS, chance.randint(0, 4))
            return {name: value(chance, depth + 1) for name in names}


def random_json(chance: random.Random) -> Bad:
    document: Any = value(chance)
    if chance.random() < 0.9:
        key = chance.choice(("instances", "instances", "inputs", "examples", "context"))
        document = {key: document}
        if chance.random() < 0.7:
            document["signature_name"] = chance.choice(SIGNATURES)
    return Bad("random JSON", request(plain(document), a_path(chance)))


def plain(document: Any) -> bytes:
    """As JSON; half of a surrogate pair that stands for no byte is escaped."""
    try:
        return as_json(document)
    except UnicodeEncodeError:
        return json.dumps(document).encode()


def broken_json(chance: random.Random) -> Bad:
    return Bad("broken JSON", request(damaged(chance, GOOD)))


def nested(chance: random.Random) -> Bad:
    depth = chance.choice((5, 60, 300, 700, 950, 990, 2_000, 50_000))
    opened, closed = chance.choice(((b"[", b"]"), (b'{"a":', b"}"), (b'[{"x":', b"}]")))
    inner = chance.choice((b"1", b'"a"', b"", b"[]"))
    key = chance.choice((b"instances", b"inputs", b"examples", b"signature_name"))
    body = b'{"%s": ' % key + opened * depth + inner + closed * depth + b"}"
    if chance.random() < 0.3:
        # Many values below many brackets: a copy with line breaks would be gigabytes.
        body = opened * depth + b"[" + b"0," * 20_000 + b"0]" + closed * depth
    return Bad("nested", request(body, a_path(chance)))


def numbers(chance: random.Random) -> Bad:
    odd = (
        b"NaN", b"-Infinity", b"Infinity", b"1e999", b"-1e999", b"1" + b"0" * 5000, b"-0",
        b"1e-999", b"9" * 19, b"9" * 20, b"2147483648", b"0.1e", b"01", b"+1", b".5",
        b"1_000", b"0x10", b"1.0", b"true", b"-",
    )  # fmt: skip
    signature, name = chance.choice(
        (
            (b"search", b"k"), (b"search", b"min_price"), (b"numbers", b"d"), (b"count", b"number"),
            (b"serving_default", b"x"), (b"types", b"u8"),
        )
    )  # fmt: skip
    item = b", ".join(chance.choice(odd) for _ in range(chance.choice((1, 1, 3))))
    row = chance.choice((b'{"%s": %s}' % (name, item), b"[%s]" % item, item))
    body = b'{"signature_name": "%s", "instances": [%s]}' % (signature, row)
    return Bad("numbers", request(body, a_path(chance)))


def media(chance: random.Random) -> Bad:
    """Broken photos and sounds in base64, or base64 that is broken."""
    image = chance.random() < 0.5
    good = chance.choice(PHOTOS if image else SOUNDS)
    huge = huge_photo(chance) if image else odd_sound(chance)
    content = chance.choice((damaged(chance, good), huge, good[:100]))
    text = base64.b64encode(content)
    if chance.random() < 0.2:
        text = damaged(chance, text)
    row = chance.choice(
        (b'{"b64": "%s"}', b'[{"b64": "%s"}]', b'"%s"', b'{"image": {"b64": "%s"}}')
    )
    signature = b"search_image" if image else b"search_audio"
    key = chance.choice((b"instances", b"inputs"))
    body = b'{"signature_name": "%s", "%s": [%s]}' % (signature, key, row % text)
    return Bad("media", request(body))


def examples(chance: random.Random) -> Bad:
    rows = [
        chance.choice(({"x": value(chance)}, {"x": [1.0, value(chance)]}, value(chance), {}))
        for _ in range(chance.choice((0, 1, 3)))
    ]
    document = {"examples": rows, "signature_name": chance.choice(SIGNATURES)}
    if chance.random() < 0.3:
        document["context"] = value(chance)
    method = chance.choice(("classify", "regress"))
    return Bad("examples", request(plain(document), f"/v1/models/half:{method}"))


def columns(chance: random.Random) -> Bad:
    """Inputs of any shape; rows that do not fit together."""
    names = ("text", "k", "image", "history", "exclude", "min_price", "category")
    given: dict[str, Any] = {}
    for name in chance.sample(names, chance.randint(1, 4)):
        rows = chance.choice((0, 1, 2, 3))
        item = chance.choice(
            ("red", 1, 1.5, [], ["a"], ["a"] * 4, [1.0] * 3, None, {"b64": "AA=="})
        )
        given[name] = chance.choice(([item] * rows, item, [[item] * rows]))
    document = {"signature_name": chance.choice(("search", "two", "embed_query")), "inputs": given}
    return Bad("columns", request(plain(document), a_path(chance)))


def packed(chance: random.Random) -> Bad:
    header = (b"Content-Encoding: gzip",)
    if chance.random() < 0.05:
        return Bad("bomb", request(BOMB, headers=header))
    body = gzip.compress(GOOD)
    cases = (
        GOOD,
        body + b"more",
        body + body,
        gzip.compress(body),
        zlib.compress(GOOD),
        body[: chance.randrange(len(body))],
        damaged(chance, body),
        body[:-8] + b"\x00" * 8,
    )
    return Bad("packed", request(chance.choice(cases), headers=header))


def wrong_length(chance: random.Random) -> Bad:
    odd = (
        b"-1", b"1e3", b"", b"x", b"9" * 5000, b"\xb2", b"0x10", b"1_0", b" 5 ", b"+5",
        b"99999999999", b"%d" % (len(GOOD) + 5), b"%d" % (len(GOOD) - 5), b"5, 5", b"0",
    )  # fmt: skip
    lengths = chance.choices(odd, k=chance.choice((1, 1, 2)))
    fields = b"".join(b"Content-Length: %s\r\n" % length for length in lengths)
    if chance.random() < 0.2:
        fields += b"Transfer-Encoding: chunked\r\n"
    head = b"POST /v1/models/tiny:predict HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n"
    return Bad("wrong length", head + GOOD)


def chunks(chance: random.Random) -> Bad:
    sizes = (
        b"5",
        b"-5",
        b"0x5",
        b"",
        b"FFFFFFFFFFFFFFFFFF",
        b"7fffffff",
        b"z",
        b"5;a=b",
        b"1" * 2000,
    )
    parts = [
        chance.choice(sizes) + b"\r\n" + chance.choice((b"12345", b'{"ins', b"1")) + b"\r\n"
        for _ in range(chance.choice((0, 1, 1, 3)))
    ]
    end = chance.choice((b"0\r\n\r\n", b"0\r\nA: b\r\n\r\n", b"", b"0\r\n" + b"A: b\r\n" * 500))
    coding = chance.choice((b"chunked", b"Chunked", b"gzip, chunked", b"identity", b"\xff"))
    head = b"POST /v1/models/tiny:predict HTTP/1.1\r\nTransfer-Encoding: " + coding + b"\r\n\r\n"
    return Bad("chunks", head + b"".join(parts) + end)


def odd_path(chance: random.Random) -> Bad:
    paths = (
        b"/", b"//", b"*", b"/v1", b"/v1/", b"/v1/models", b"/v1/models/", b"/v1/models//metadata",
        b"/v1/models/%00", b"/v1/models/%ff%fe/metadata", b"/v1/models/tiny/versions/-1",
        b"/v1/models/tiny/versions/" + b"9" * 5000, b"/v1/models/tiny/versions/99:predict",
        b"/v1/models/tiny/labels/%e2%80%ae:predict", b"/v1/models/tiny/labels/:predict",
        b"/v1/models/../../etc/passwd", b"/v1/models/tiny:predict?" + b"a=b&" * 9000,
        b"/v1/models/" + b"x" * 60_000 + b":predict", b"/v1/models/" + b"x" * 70_000, b"\xff\xfe",
        b"http://a/v1/models/tiny", b"/V1/MODELS/tiny/METADATA", b"/v1/models/tiny:predict:predict",
        b"/v1/models/tiny\x00", b"/v1/models/%", b"/v1/models/tiny#a", b"/monitoring/prometheus",
        b"/v1/models/ tiny", b"/v1/models/tiny\ttiny",
    )  # fmt: skip
    method = chance.choice(("GET", "POST"))
    return Bad("path", request(b"" if method == "GET" else GOOD, chance.choice(paths), method))


def odd_method(chance: random.Random) -> Bad:
    method = chance.choice(
        (
            "PUT",
            "DELETE",
            "PATCH",
            "TRACE",
            "CONNECT",
            "HEAD",
            "OPTIONS",
            "get",
            "P\u00f6ST",
            "X" * 999,
        )
    )
    path = chance.choice(("/v1/models/tiny:predict", "/v1/models/tiny", "/", "*"))
    if chance.random() < 0.3:
        line = chance.choice(
            (
                b"POST", b"GET /", b"POST /v1/models/tiny", b"GET / HTTP/9.9",
                b"GET / HTTP/1.1.1", b"GET / HTTP/x", b"GET / FTP/1.1", b"GET  /  HTTP/1.1 more",
                b"\x16\x03\x01\x02\x00",
            )
        )  # fmt: skip
        return Bad("method", line + b"\r\n\r\n")
    return Bad("method", request(GOOD, path, method))


def odd_headers(chance: random.Random) -> Bad:
    odd = (
        b"X: " + b"a" * 70_000, b"no colon", b": no name", b"X:\x00\x01\xff", b" folded: yes",
        b"Expect: 100-continue", b"Expect: everything", b"Connection: keep-alive, upgrade",
        b"Content-Type: " + b"\xff" * 100, b"Content-Encoding: br", b"Content-Encoding: \xff",
        b"Origin: \xff\x00", b"Upgrade: h2c", b"Host: a\r\nHost: b",
        b"Content-Encoding: gzip, gzip",
    )  # fmt: skip
    headers = tuple(chance.choices(odd, k=chance.choice((1, 2, 150))))
    return Bad("headers", request(GOOD, headers=headers))


def ask(port: int, content: bytes) -> bytes:
    """All that a connection answers to some bytes, after which no more come."""
    answer = bytearray()
    with socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S) as connection:
        connection.sendall(content)
        connection.shutdown(socket.SHUT_WR)
        while received := connection.recv(1 << 16):
            answer += received
    return bytes(answer)


def fault_of(bad: Bad, answer: bytes) -> tuple[int, str]:
    """The status of an answer, and what is wrong with it, if anything is."""
    match = STATUS.fullmatch(answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n"))
    if not match:
        return 0, "no status"
    status, headers, body = int(match[1]), match[2], match[3]
    if status not in CLEAR:
        return status, "not a clear status"
    is_head = b"HEAD " in bad.content[:5]
    if status not in (200, 404) and not is_head:
        if b"application/json" not in headers:
            return status, "the error is no JSON"
        text, _ = json.JSONDecoder().raw_decode(body.decode("utf-8", "replace"))
        if not text["error"]:
            return status, "the error has no text"
        if len(body) > 100_000:
            return status, "the error's text is too long"
    return status, ""


@pytest.mark.parametrize("count", [480, pytest.param(20_000, marks=pytest.mark.slow)])
def test_http_nonsense_gets_a_clear_status_and_the_server_goes_on(server, count: int):
    path = "/v1/models/tiny:predict"
    before = server.rest("POST", path, GOOD)[:2]
    memory_mb = peak_mb(server.process.pid)
    seen: Counter[tuple[str, int]] = Counter()
    faults: list[str] = []

    def answered(bad: Bad) -> tuple[Bad, bytes]:
        try:
            return bad, ask(server.rest_port, bad.content)
        except OSError as error:
            return bad, repr(error).encode()

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        for bad, answer in pool.map(answered, nonsense(count, seed=count)):
            status, fault = fault_of(bad, answer)
            seen[bad.kind, status] += 1
            if fault:
                faults.append(f"{bad.kind}: {fault}: {answer[:300]!r}\n{bad.content[:400]!r}")
    assert not faults, f"{len(faults)} of {count}, the first: " + "\n".join(faults[:5])
    assert server.process.poll() is None
    assert before[0] == 200
    assert server.rest("POST", path, GOOD)[:2] == before
    # Some of it is harmless, most of it is not: otherwise these requests try nothing.
    refused = sum(number for (_, status), number in seen.items() if status != 200)
    assert count // 2 < refused < count, seen
    assert seen["bomb", 413]
    assert peak_mb(server.process.pid) - memory_mb < 1024
