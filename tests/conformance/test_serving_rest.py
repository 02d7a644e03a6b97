"""The REST API, to the byte where TensorFlow Serving's own tests or clients could see it."""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import math
import re
import socket

import grpc
import pytest
from serving_process import Server

from tfmm.serving.status import Code, http_status

HALF, ZOO = "/v1/models/half", "/v1/models/zoo"


def error_of(answer: tuple[int, object]) -> tuple[int, str]:
    status, body = answer
    assert list(body) == ["error"]
    return status, body["error"]


# --- predict -------------------------------------------------------------------------------------


def test_rows_in_rows_out(server: Server):
    status, body = server.post(f"{HALF}:predict", {"instances": [1.0, 2.0, 5.0]})
    assert (status, body) == (200, {"predictions": [3.5, 4.0, 5.5]})


def test_columns_in_columns_out(server: Server):
    status, body = server.post(f"{HALF}:predict", {"inputs": [[1.0], [2.0]]})
    assert (status, body) == (200, {"outputs": [[3.5], [4.0]]})


def test_the_text_breaks_its_lines_as_the_real_servers_does(server: Server):
    _, content, headers = server.rest("POST", f"{HALF}:predict", {"instances": [1.0, 2.0]})
    assert content == b'{\n    "predictions": [3.5, 4.0\n    ]\n}'
    assert headers["Content-Type"] == "application/json"
    _, content, _ = server.rest("POST", f"{HALF}:predict", {"inputs": [[1.0]]})
    assert content == (b'{\n    "outputs": [\n        [\n            3.5\n        ]\n    ]\n}')


def test_several_tensors_have_names(server: Server):
    rows = [{"words": ["a", "b"], "numbers": [1, 2.5]}, {"words": ["c", "d"], "numbers": [0, 0]}]
    _, body = server.post(f"{ZOO}:predict", {"signature_name": "two", "instances": rows})
    assert body["predictions"][0] == {
        "joined": "a b",
        "joined_bytes": {"b64": base64.b64encode(b"ab").decode()},
        "rows": 2,
        "total": 3.5,
    }
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    _, body = server.post(f"{ZOO}:predict", {"signature_name": "two", "inputs": columns})
    assert body["outputs"]["joined"] == ["a b", "c d"]
    assert body["outputs"]["total"] == [3.5, 0.0]


def test_bytes_come_in_base_64(server: Server):
    photo = {"b64": base64.b64encode(b"\xff\xd8").decode()}
    rows = [{"words": [photo], "numbers": [1]}]
    _, content, _ = server.rest(
        "POST", f"{ZOO}:predict", {"signature_name": "two", "instances": rows}
    )
    # Bytes under a name that promises text come as they are, as from the real server.
    assert b'"joined": "\xff\xd8"' in content
    (row,) = json.loads(content.decode("utf-8", "replace"))["predictions"]
    assert base64.b64decode(row["joined_bytes"]["b64"]) == b"\xff\xd8"


def test_a_version_and_a_label_choose(server: Server):
    body = {"instances": [2.0]}
    assert server.post(f"{HALF}/versions/123:predict", body)[1] == {"predictions": [3.0]}
    assert server.post(f"{HALF}/labels/stable:predict", body)[1] == {"predictions": [3.0]}
    assert server.post(f"{HALF}/versions/00124:predict", body)[1] == {"predictions": [4.0]}


def test_paths_do_not_mind_their_case_and_names_may_be_escaped(server: Server):
    assert server.post("/V1/Models/ha%6cf:Predict", {"instances": [2.0]})[0] == 200


def test_floats_are_written_so_that_they_come_back(server: Server):
    values = [0.1, 1 / 3, 1e-7, 123456.0, 1234567.0, 1e22, -0.0, 16777216.0]
    rows = [{"d": value, "i": 1, "b": True} for value in values]
    _, content, _ = server.rest(
        "POST", f"{ZOO}:predict", {"signature_name": "numbers", "instances": rows}
    )
    text = content.decode()
    doubles = re.findall(r'"double": ([^,\n]+)', text)
    floats = re.findall(r'"float": ([^,\n]+)', text)
    assert doubles == [
        "0.1", "0.33333333333333331", "1e-07", "123456.0", "1234567.0", "1e+22", "-0.0",
        "16777216.0",
    ]  # fmt: skip
    assert floats == [
        "0.1", "0.333333343", "1e-07", "123456.0", "1234567.0", "1e+22", "-0.0", "16777216.0",
    ]  # fmt: skip
    assert json.loads(text)["predictions"][0]["int"] == 1
    assert json.loads(text)["predictions"][0]["bool"] is True


def test_nan_and_infinity_are_words_both_ways(server: Server):
    body = b'{"instances": [NaN, Infinity, -Infinity]}'
    status, content, _ = server.rest("POST", f"{HALF}:predict", body)
    assert status == 200
    assert b"[NaN, Infinity, -Infinity" in content
    assert math.isnan(json.loads(content)["predictions"][0])


def test_a_packed_body_is_unpacked(server: Server):
    packed = gzip.compress(json.dumps({"instances": [2.0]}).encode())
    status, content, _ = server.rest(
        "POST", f"{HALF}:predict", packed, {"Content-Encoding": "gzip"}
    )
    assert (status, json.loads(content)) == (200, {"predictions": [4.0]})
    status, content, _ = server.rest(
        "POST", f"{HALF}:predict", packed[:-9], {"Content-Encoding": "gzip"}
    )
    assert status == 400


def test_a_body_in_chunks_and_a_connection_used_twice(server: Server):
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=30)
    for _ in range(2):
        parts = iter([b'{"instances": ', b"[2.0]}"])
        connection.request("POST", f"{HALF}:predict", body=parts, encode_chunked=True)
        answer = connection.getresponse()
        assert json.loads(answer.read()) == {"predictions": [4.0]}
    connection.close()


def test_a_client_that_asks_first_is_told_to_send_its_body(server: Server):
    body = b'{"instances": [2.0]}'
    head = (
        f"POST {HALF}:predict HTTP/1.1\r\nHost: here\r\nExpect: 100-continue\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.rest_port), timeout=30) as connection:
        connection.sendall(head.encode())
        answer = connection.makefile("rb")
        assert [answer.readline(), answer.readline()] == [b"HTTP/1.1 100 Continue\r\n", b"\r\n"]
        connection.sendall(body)
        assert answer.readline() == b"HTTP/1.1 200 OK\r\n"
        answer.close()


ONE_INPUT_WANTED = "Missing 'inputs' or 'instances' key"
BOTH = {"inputs": [1.0], "instances": [1.0]}


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        (f"{HALF}:predict", b"", 400, "JSON Parse error: The document is empty"),
        (f"{HALF}:predict", b"x", 400, "JSON Parse error: Invalid value. at offset: 0"),
        (f"{HALF}:predict", b"[1]", 400, "JSON Value: [\n    1\n] Is not object"),
        (f"{HALF}:predict", {}, 400, ONE_INPUT_WANTED),
        (
            f"{HALF}:predict",
            BOTH,
            400,
            'JSON Value: {\n    "inputs": [\n        1.0\n    ],\n    "instances": [\n        1.0\n'
            "    ]\n} Not formatted correctly expecting only one of 'inputs' or 'instances' keys "
            "to exist ",
        ),
        (
            f"{HALF}:predict",
            {"instances": 1},
            400,
            "JSON Value: {\n    \"instances\": 1\n} Excepting 'instances' to be an list/array",
        ),
        (
            f"{HALF}:predict",
            {"instances": []},
            400,
            "JSON Value: {\n    \"instances\": []\n} No values in 'instances' array",
        ),
        (
            f"{HALF}:predict",
            {"signature_name": 1, "instances": [1.0]},
            400,
            'JSON Value: {\n    "signature_name": 1,\n    "instances": [\n        1.0\n    ]\n} '
            "not formatted correctly. 'signature_name' key must be a string value.",
        ),
        (
            f"{HALF}:predict",
            {"signature_name": "zz", "instances": [1.0]},
            400,
            'Serving signature name: "zz" not found in signature def',
        ),
        (
            f"{HALF}:predict",
            {"instances": ["a"]},
            400,
            "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: JSON "
            'Value: "a" Type: String is not of expected type: float',
        ),
        (
            f"{HALF}:predict",
            {"instances": [1.0, [1.0]]},
            400,
            "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "
            "Expecting shape [] but got: [1]",
        ),
        (
            f"{HALF}:predict",
            {"instances": [[1.0], [1.0, 2.0]]},
            400,
            "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "
            "Expecting tensor size: 1 but got: 2",
        ),
        (
            f"{HALF}:predict",
            {"inputs": [[1.0], [1.0, 2.0]]},
            400,
            "Encountered list at unexpected size: 2 at level: 1 expected size: 1",
        ),
        (
            f"{HALF}:predict",
            {"inputs": [[1.0], 2.0]},
            400,
            "JSON Value: 2.0 found at incorrect level: 2 in the JSON DOM. Expected at level: 2",
        ),
        (
            f"{HALF}:predict",
            {"instances": [16777217]},
            400,
            "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: Cannot "
            "convert JSON value: 16777217 to float without loss of precision.",
        ),
        (
            f"{ZOO}:predict",
            {"signature_name": "two", "instances": [1]},
            400,
            "instances is a plain list, but expecting list of objects as multiple input tensors "
            "required as per tensorinfo_map",
        ),
        (
            f"{ZOO}:predict",
            {"signature_name": "two", "inputs": [1]},
            400,
            "inputs is a plain value/list, but expecting an object as multiple input tensors "
            "required as per tensorinfo_map",
        ),
        (
            f"{ZOO}:predict",
            {"signature_name": "two", "inputs": {"words": [["a"]]}},
            400,
            "Missing named input: numbers in 'inputs' object.",
        ),
        (
            f"{ZOO}:predict",
            {"signature_name": "two", "instances": [{"words": ["a"], "q": 1}]},
            400,
            "Failed to process element: 0 key: q of 'instances' list. Error: INVALID_ARGUMENT: "
            "JSON object: does not have named input: q",
        ),
        (
            f"{ZOO}:predict",
            {"signature_name": "two", "instances": [{"words": "a"}]},
            400,
            "Failed to process element: 0 of 'instances' list. JSON object: {\n    \"words\": "
            '"a"\n} keys must be equal to: numbers,words',
        ),
        (
            f"{ZOO}:predict",
            {"signature_name": "two", "inputs": {"words": [[{"b64": "*"}]], "numbers": [[1]]}},
            400,
            "Unable to base64 decode",
        ),
        (
            f"{ZOO}:predict",
            {"signature_name": "count", "instances": [1.5]},
            400,
            "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: JSON "
            "Value: 1.5 Type: Number is not of expected type: int32",
        ),
        (
            f"{ZOO}:predict",
            {"signature_name": "scalar", "instances": [1.0]},
            400,
            "Tensor name: total has no shape information ",
        ),
        (
            f"{ZOO}:predict",
            {"signature_name": "uneven", "instances": [1.0, 2.0]},
            400,
            "Tensor name: b has inconsistent batch size: 1 expecting: 2",
        ),
        (
            "/v1/models/m:predict",
            {"instances": [1.0]},
            404,
            "Servable not found for request: Latest(m)",
        ),
        (
            f"{HALF}/versions/9:predict",
            {"instances": [1.0]},
            404,
            "Servable not found for request: Specific(half, 9)",
        ),
        (
            f"{HALF}/labels/zz:predict",
            {"instances": [1.0]},
            400,
            "Unrecognized servable version label: zz",
        ),
        (
            f"{HALF}/versions/99999999999999999999:predict",
            {"instances": [1.0]},
            400,
            "Failed to convert version: 99999999999999999999 to numeric.",
        ),
        ("/v1/models/half:guess", {}, 400, "Malformed request: POST /v1/models/half:guess"),
    ],
)
def test_a_request_that_cannot_be_answered(server: Server, path, body, status, text):
    assert error_of(server.post(path, body)) == (status, text)


def test_a_type_that_json_has_not_is_not_implemented(server: Server):
    body = {"signature_name": "types", "inputs": {"b": [True], "c": [1.0], "d": [1.0], "g": [1.0]}}
    body["inputs"] |= {name: [1.0] for name in ("h",)}
    body["inputs"] |= {name: [1] for name in ("i8", "i16", "i64", "u8", "u16", "u32", "u64")}
    assert error_of(server.post(f"{ZOO}:predict", body)) == (
        501, "Conversion of JSON Value: 1.0 to type: complex64"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (Code.OK, 200),
        (Code.INVALID_ARGUMENT, 400),
        (Code.FAILED_PRECONDITION, 400),
        (Code.OUT_OF_RANGE, 400),
        (Code.NOT_FOUND, 404),
        (Code.RESOURCE_EXHAUSTED, 429),
        (Code.UNIMPLEMENTED, 501),
        (Code.UNAVAILABLE, 503),
        (Code.DEADLINE_EXCEEDED, 504),
        (Code.UNKNOWN, 500),
        (Code.INTERNAL, 500),
        (Code.DATA_LOSS, 500),
    ],
)
def test_every_code_has_its_http_status(code: Code, status: int):
    assert http_status(code) == status


def test_a_scalar_can_be_had_in_columns(server: Server):
    body = {"signature_name": "scalar", "inputs": [1.0, 2.0]}
    assert server.post(f"{ZOO}:predict", body) == (200, {"outputs": 3.0})


def test_a_request_that_takes_too_long_is_a_gateway_timeout(server: Server):
    body = {"signature_name": "wait", "instances": [1.0]}
    status, _ = server.post(f"{ZOO}:predict", body)
    assert status == 504


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"instances": [1' + b"0" * 5000 + b"]}",
        b'{"instances": [1e999]}',
        b'{"instances": ["\xff"]}',
        b'{"signature_name": "\xff", "instances": [1.0]}',
        b'{"instances": [1.0], }',
        b'{"instances": ["\\ud800"]}',
        b'{"signature_name": "\\ud800", "instances": [1.0]}',
    ],
)
def test_odd_json_is_the_clients_fault(server: Server, body: bytes):
    assert error_of(server.post(f"{HALF}:predict", body))[0] == 400


# --- classify and regress ------------------------------------------------------------------------


def test_classify(server: Server):
    body = {"signature_name": "classify_labels", "examples": [{"x": 2.0}, {"x": [4.0]}]}
    status, answer = server.post(f"{HALF}:classify", body)
    assert (status, answer) == (200, {"results": [[["y", 4.0]], [["y", 5.0]]]})


def test_regress_with_a_context(server: Server):
    body = {"signature_name": "regress_x_to_y", "context": {"x": 8.0}, "examples": [{}, {"x": 2.0}]}
    _, content, _ = server.rest("POST", f"{HALF}:regress", body)
    assert content == b'{\n    "results": [7.0, 4.0]\n}'


@pytest.mark.parametrize(
    ("method", "body", "text"),
    [
        (
            "classify",
            {},
            "JSON Value: {} When method is classify, key 'examples' is expected and was not found",
        ),
        (
            "regress",
            {"examples": 1},
            "JSON Value: {\n    \"examples\": 1\n} Expecting 'examples' value to be an list/array",
        ),
        (
            "regress",
            {"examples": []},
            "JSON Value: {\n    \"examples\": []\n} 'examples' value is an empty array",
        ),
        ("regress", {"examples": [1]}, "Example must be JSON object but got JSON Number"),
        (
            "regress",
            {"examples": [{"x": None}]},
            "Feature: x has element with unexpected JSON type: Null",
        ),
        (
            "regress",
            {"examples": [{"x": [1.0, "a"]}]},
            "Unexpected element type in feature: x expecting type: float",
        ),
        (
            "regress",
            {"examples": [{"x": 1.0}], "signature_name": "zz"},
            "No signature was found with the name: zz",
        ),
    ],
)
def test_examples_that_cannot_be_answered(server: Server, method, body, text):
    assert error_of(server.post(f"{HALF}:{method}", body)) == (400, text)


# --- status and metadata -------------------------------------------------------------------------


def test_status(server: Server):
    status, content, _ = server.rest("GET", f"{HALF}/versions/123")
    assert status == 200
    assert json.loads(content) == {
        "model_version_status": [
            {
                "version": "123",
                "state": "AVAILABLE",
                "status": {"error_code": "OK", "error_message": ""},
            }
        ]
    }
    versions = json.loads(server.rest("GET", HALF)[1])["model_version_status"]
    assert [one["version"] for one in versions] == ["124", "123"]


def test_status_of_a_label(server: Server):
    versions = json.loads(server.rest("GET", f"{HALF}/labels/stable")[1])["model_version_status"]
    assert [one["version"] for one in versions] == ["123"]
    code, content, _ = server.rest("GET", f"{HALF}/labels/zz")
    assert error_of((code, json.loads(content))) == (
        400, "Unrecognized servable version label: zz"
    )  # fmt: skip


def test_metadata(server: Server):
    status, content, _ = server.rest("GET", f"{HALF}/labels/stable/metadata")
    assert status == 200
    body = json.loads(content)
    assert body["model_spec"] == {"name": "half", "signature_name": "", "version": "123"}
    signature = body["metadata"]["signature_def"]["signature_def"]["regress_x_to_y"]
    assert signature["method_name"] == "tensorflow/serving/regress"
    assert signature["inputs"]["inputs"]["dtype"] == "DT_STRING"


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "/v1/models/m", 404, "Could not find any versions of model m"),
        ("GET", f"{HALF}/versions/9", 404, "Could not find version 9 of model half"),
        ("GET", "/v1/models/m/metadata", 404, "Servable not found for request: Latest(m)"),
        ("GET", "/v1/models", 400, "Missing model name in request."),
        ("GET", f"{HALF}:predict", 400, "Malformed request: GET /v1/models/half:predict"),
        ("PUT", HALF, 400, "Malformed request: PUT /v1/models/half"),
    ],
)
def test_a_path_without_an_answer(server: Server, method, path, status, text):
    code, content, _ = server.rest(method, path)
    assert error_of((code, json.loads(content))) == (status, text)


@pytest.mark.parametrize("path", ["/", "/v2/models/half", "/monitoring", "/metrics"])
def test_another_path_is_not_found_and_has_no_body(server: Server, path: str):
    assert server.rest("GET", path)[:2] == (404, b"")


# --- CORS ----------------------------------------------------------------------------------------


def test_cors_headers_are_sent_with_everything(server: Server):
    _, _, headers = server.rest("GET", HALF)
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert headers["Access-Control-Allow-Methods"] == "POST, GET"
    assert headers["Access-Control-Allow-Headers"] == "Content-Type"


def test_a_preflight_wants_an_origin(server: Server):
    path = f"{HALF}:predict"
    assert server.rest("OPTIONS", path, headers={"Origin": "https://shop.example"})[0] == 200
    assert server.rest("OPTIONS", path)[0] == 400
    assert server.rest("OPTIONS", path, headers={"Origin": "ftp://shop.example"})[0] == 400


# --- Prometheus ----------------------------------------------------------------------------------

SAMPLE = re.compile(r"(?P<name>[a-zA-Z_:][\w:]*)\{(?P<labels>[^}]*)\} (?P<value>\S+)")


def samples(server: Server) -> dict[str, float]:
    """Values by name and labels; fails on a line that is neither sample nor TYPE."""
    status, content, headers = server.rest("GET", "/monitoring/prometheus/metrics")
    assert (status, headers["Content-Type"]) == (200, "text/plain")
    found = {}
    for line in content.decode().splitlines():
        if re.fullmatch(r"# TYPE (:tensorflow:serving:|tfmm_)\w+ (counter|gauge|histogram)", line):
            continue
        match = SAMPLE.fullmatch(line)
        assert match, line
        found[f"{match['name']}{{{match['labels']}}}"] = float(match["value"])
    return found


def test_prometheus_counts_under_the_real_names(server: Server):
    server.predict("half", {"x": [1.0]})
    before = samples(server)
    server.predict("half", {"x": [1.0]})
    server.post(f"{HALF}:predict", {"instances": [1.0]})
    server.post(f"{HALF}:predict", {"instances": ["a"]})
    server.post(
        f"{HALF}:regress", {"signature_name": "regress_x_to_y", "examples": [{"x": 1.0}] * 3}
    )
    after = samples(server)
    prefix = ":tensorflow:serving:"

    def grown(name: str) -> float:
        return after[prefix + name] - before.get(prefix + name, 0.0)

    assert grown('request_count{model_name="half",status="OK"}') == 3
    assert grown('request_count{model_name="half",status="INVALID_ARGUMENT"}') == 1
    grpc_labels = 'model_name="half",API="Predict",entrypoint="GRPC"'
    assert grown(f"request_latency_count{{{grpc_labels}}}") == 1
    assert grown(f'request_latency_bucket{{{grpc_labels},le="+Inf"}}') == 1
    rest_labels = 'model_name="half",API="predict",entrypoint="REST"'
    assert grown(f"request_latency_count{{{rest_labels}}}") == 1
    runtime = 'model_name="half",API="Predict",runtime="TF1"'
    assert grown(f"runtime_latency_count{{{runtime}}}") == 2
    assert grown('request_example_count_total{model="half"}') == 3
    assert grown('request_example_counts_sum{model="half"}') == 3


def test_prometheus_times_the_warm_up(server: Server):
    found = [key for key in samples(server) if "model_warmup_latency_count" in key]
    assert len(found) == 1  # the tiny shop alone has records
    assert re.fullmatch(
        r':tensorflow:serving:model_warmup_latency_count\{model_path="[^"]*/tiny/1",status="OK"\}',
        found[0],
    )


def test_prometheus_takes_no_names_from_requests(server: Server):
    name = 'request_count{model_name="%s",status="NOT_FOUND"}'
    unknown = ":tensorflow:serving:" + name % "(unknown)"
    before = samples(server)
    for number in range(3):
        made_up = f"made-up-{number}"
        assert server.post(f"/v1/models/{made_up}:predict", {"instances": [1.0]})[0] == 404
        with pytest.raises(grpc.RpcError):
            server.predict(made_up, {"x": [1.0]})
    with pytest.raises(grpc.RpcError):
        server.predict("half", {"x": [1.0]}, version=9)
    after = samples(server)
    assert after[unknown] - before.get(unknown, 0.0) == 6
    assert not [key for key in after if "made-up" in key]
    # A model that is served keeps its name, whatever its status.
    assert after[":tensorflow:serving:" + name % "half"] >= 1
    assert set(after) - set(before) <= {unknown, ":tensorflow:serving:" + name % "half"}


def test_prometheus_counts_the_queries_of_tfmms_own_models(server: Server):
    before = samples(server)
    server.predict("tiny", {"text": ["red", "", "mug"], "history": [["", "", "", "p01"]]})
    server.predict("tiny", {"product_id": ["p01"]}, signature="similar")
    server.post("/v1/models/tiny:predict", {"signature_name": "search_text", "instances": ["red"]})
    server.predict("tiny", {"text": ["red"]}, signature="embed_query")
    after = samples(server)

    def grown(name: str, labels: str = "") -> float:
        key = f'tfmm_queries_{name}_total{{model_name="tiny"{labels}}}'
        return after[key] - before.get(key, 0.0)

    assert after['tfmm_catalogue_products{model_name="tiny",version="1"}'] == 24
    assert 0 < after['tfmm_index_age_seconds{model_name="tiny",version="1"}'] < 86_400
    key = 'tfmm_queries_total{model_name="tiny"}'
    assert after[key] - before.get(key, 0.0) == 5
    assert grown("without_hit") == 0
    assert grown("with_modality", ',modality="text"') == 3
    assert grown("with_modality", ',modality="history"') == 3
    assert grown("with_modality", ',modality="product"') == 1
    assert not [key for key in after if key.startswith("tfmm_") and "half" in key]


def test_buckets_grow_by_1_8(server: Server):
    server.predict("half", {"x": [1.0]})
    found = samples(server)
    labels = 'model_name="half",API="Predict",entrypoint="GRPC"'
    name = f":tensorflow:serving:request_latency_bucket{{{labels},le="
    limits = [key.removeprefix(name).strip('"}') for key in found if key.startswith(name)]
    assert limits[:4] == ["10", "18", "32.4", "58.32"]
    assert len(limits) == 34
    assert limits[-1] == "+Inf"
    counts = [found[f'{name}"{limit}"}}'] for limit in limits]
    assert counts == sorted(counts)


def test_a_count_at_a_limit_is_above_it(server: Server):
    body = {"signature_name": "regress_x_to_y", "examples": [{"x": 1.0}] * 2}
    name = ':tensorflow:serving:request_example_counts_bucket{model="half",le='
    server.post(f"{HALF}:regress", body)
    before = samples(server)
    server.post(f"{HALF}:regress", body)
    after = samples(server)
    assert after[f'{name}"2"}}'] == before[f'{name}"2"}}']
    assert after[f'{name}"4"}}'] == before[f'{name}"4"}}'] + 1
