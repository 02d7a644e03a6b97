"""Clients that other people wrote, unmodified, against a server: each a process of its own.

The programs in `clients/` are what a user of such a library would write. Libraries that are not
among tfmm's own requirements are installed for the session, in exact versions; where a registry is
out of reach, their tests are skipped and say so.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import re
import shutil
import sys
from pathlib import Path

import client_packages
import numpy as np
import pytest
import tiny_shop
from client_packages import CLIENTS, node_with, output, python_with, result
from PIL import Image
from serving_process import Server

import tfmm

PHOTO = tiny_shop.products()[5]["image"]
# The scores of equal rows differ by rounding, with what they shared a batch with.
TOLERANCE = 1e-5
Hits = list[tuple[str, float]]


@pytest.fixture(scope="module")
def loaded(shop):
    return tfmm.load_model(shop[1])


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "photo.jpg"
    path.write_bytes(PHOTO)
    return path


@pytest.fixture(scope="session")
def min_tfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return python_with("min_tfs.txt", tmp_path_factory.mktemp("min_tfs"))


@pytest.fixture(scope="session")
def grpc_tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return python_with("grpc_tools.txt", tmp_path_factory.mktemp("grpc_tools"))


@pytest.fixture(scope="session")
def grpc_js(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return node_with("grpc_js", tmp_path_factory.mktemp("node") / "grpc_js")


@pytest.fixture(scope="session")
def perf_analyzer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The program, and where its libraries are."""
    try:
        ctypes.CDLL("libb64.so.0d")
    except OSError as error:
        pytest.skip(f"perf_analyzer needs Debian's libb64-0d: {error}")
    python = python_with("perf_analyzer.txt", tmp_path_factory.mktemp("perf_analyzer"))
    (cuda,) = python.parents[1].glob("lib/python*/site-packages/nvidia/cuda_runtime/lib")
    folders = (str(cuda), os.environ.get("LD_LIBRARY_PATH"))
    return python.with_name("perf_analyzer"), os.pathsep.join(filter(None, folders))


def hits_of(answer: dict[str, np.ndarray]) -> Hits:
    pairs = zip(answer["product_id"][0], answer["score"][0], strict=True)
    return [(product.decode(), float(score)) for product, score in pairs]


def assert_same(found: Hits, expected: Hits) -> None:
    """The same products with the same scores, best first; those of equal scores in any order."""
    assert {product for product, _ in found} == {product for product, _ in expected}
    scores = [score for _, score in found]
    assert scores == sorted(scores, reverse=True)
    assert dict(found) == pytest.approx(dict(expected), abs=TOLERANCE)


def address(server: Server) -> str:
    return f"127.0.0.1:{server.port}"


# --- what tfmm's own requirements bring -----------------------------------------------------------


def test_tensorflow_servings_example_clients(server: Server, loaded, photo: Path):
    program = CLIENTS / "tf_serving_example.py"
    flags = (f"--server={address(server)}", f"--image={photo}")
    found = result(sys.executable, "-I", program, *flags)
    assert found["error_rate"] == 0
    assert_same(found["hits"], hits_of(loaded.signatures["search_image"](image=[PHOTO])))


def test_requests(server: Server, loaded, photo: Path):
    url = f"http://127.0.0.1:{server.rest_port}"
    found = result(sys.executable, "-I", CLIENTS / "rest_example.py", url, photo)
    assert found["versions"] == {"123": "AVAILABLE", "124": "AVAILABLE"}
    assert {"serving_default", "regress_x_to_y", "classify_x_to_y"} <= set(found["signatures"])
    assert found["absent"] == [404, {"error": "Servable not found for request: Latest(gone)"}]
    expected = hits_of(loaded.signatures["search_image"](image=[PHOTO]))
    assert len(found["hits"]) == 5
    for hits in found["hits"]:
        assert_same(hits, expected)


def curl(*options: str | Path) -> str:
    program = shutil.which("curl")
    if program is None:
        pytest.skip("curl is not installed")
    return output(program, "--silent", "--show-error", "--max-time", "60", *options)


def test_curl_as_in_tensorflow_servings_introduction(server: Server):
    url = f"http://localhost:{server.rest_port}/v1/models/half/versions/123:predict"
    said = curl("-d", '{"instances": [1.0, 2.0, 5.0]}', "-X", "POST", url)
    assert said == '{\n    "predictions": [2.5, 3.0, 4.5\n    ]\n}'


def test_curl_asks_before_it_sends_a_large_photo(server: Server, loaded, tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 256, (600, 600, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.png")
    content = (tmp_path / "photo.png").read_bytes()
    encoded = {"b64": base64.b64encode(content).decode()}
    body = tmp_path / "body.json"
    body.write_text(json.dumps({"signature_name": "search_image", "instances": [encoded]}))
    assert body.stat().st_size > 1 << 20, "curl sends less without asking"
    url = f"http://localhost:{server.rest_port}/v1/models/tiny:predict"
    # Unless it is told to go on, it waits for longer than it may take.
    said = curl("--expect100-timeout", "600", "--data-binary", f"@{body}", url)
    (row,) = json.loads(said)["predictions"]
    expected = hits_of(loaded.signatures["search_image"](image=[content]))
    assert_same(list(zip(row["product_id"], row["score"], strict=True)), expected)


# --- what is installed for the session ------------------------------------------------------------


def test_min_tfs_client(server: Server, loaded, min_tfs: Path):
    program = CLIENTS / "min_tfs_example.py"
    found = result(min_tfs, "-I", program, "127.0.0.1", str(server.port))
    assert found["halves"] == [[2.5], [3.0], [4.5]]
    assert found["version"] == 123
    expected = loaded.signatures["serving_default"](text=["red shirt"], k=[5])
    assert_same(found["hits"], hits_of(expected))
    assert found["refusal"] == ["NOT_FOUND", "Servable not found for request: Specific(half, 9)"]
    assert found["classes"] == [[["y", 3.0]], [["y", 4.0]]]
    assert found["values"] == [3.0, 4.0]
    assert found["inputs"] == ["text"]
    assert found["states"] == {"123": "AVAILABLE", "124": "AVAILABLE"}


def test_grpcs_health_and_reflection_clients(server: Server, loaded, grpc_tools: Path):
    program = CLIENTS / "health_and_reflection.py"
    found = result(grpc_tools, "-I", program, address(server))
    assert found["health"] == ["SERVING", "SERVING"]
    assert found["services"] == {
        "tensorflow.serving.PredictionService": [
            "Classify", "GetModelMetadata", "MultiInference", "Predict", "Regress",
        ],
        "tensorflow.serving.ModelService": ["GetModelStatus", "HandleReloadConfigRequest"],
        "grpc.reflection.v1alpha.ServerReflection": ["ServerReflectionInfo"],
    }  # fmt: skip
    assert_same(found["hits"], hits_of(loaded.signatures["search_text"](text=["red shirt"])))


def test_grpc_js(server: Server, loaded, grpc_js: Path):
    output(
        sys.executable, "-I", CLIENTS / "descriptors.py", grpc_js / "services.bin",
        PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION="python",
    )  # fmt: skip
    found = result("node", grpc_js / "client.js", address(server), grpc_js / "services.bin")
    assert found["one"] == {"version": 123, "signature": "serving_default", "y": [2.5, 3, 4.5]}
    assert found["many"] == [x / 2 + 2 for x in range(48)]
    assert found["packed"] == [4.0] * 1000
    for language, words in (("english", "red shirt"), ("chinese", "蓝色杯子")):
        expected = loaded.signatures["serving_default"](text=[words], k=[5])
        assert_same(found[language], hits_of(expected))
    assert found["metadata"]["type"] == "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    assert {"serving_default", "search_text", "similar"} <= set(found["metadata"]["names"])
    assert found["status"] == [[124, "AVAILABLE"], [123, "AVAILABLE"]]
    assert found["absent"] == ["NOT_FOUND", "Servable not found for request: Latest(没有)"]
    assert found["refused"] == [
        "INVALID_ARGUMENT",
        "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. "
        "Missing but required: {x}.",
    ]
    assert found["late"] == "DEADLINE_EXCEEDED"
    assert found["afterwards"] == [5.0]


def answered(server: Server, model: str) -> float:
    """How many calls to a model ended well, as the server counts them."""
    _, content, _ = server.rest("GET", "/monitoring/prometheus/metrics")
    name = f':tensorflow:serving:request_count{{model_name="{model}",status="OK"}} '
    (count,) = (line for line in content.decode().splitlines() if line.startswith(name))
    return float(count.removeprefix(name))


TWO_TEXTS = ("--shape", "text:2", "--string-data", "red shirt")


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("half", ("-x", "stable", "--shape", "x:1", "-b", "8")),
        ("tiny", ("--model-signature-name", "search_text", *TWO_TEXTS)),
    ],
)
def test_perf_analyzer(server: Server, perf_analyzer, tmp_path: Path, model: str, options):
    program, libraries = perf_analyzer
    server.predict(model, {"x": [1.0]} if model == "half" else {"text": ["red"]})
    before = answered(server, model)
    # Whatever the figures are, they are steady enough: this asks for answers, not for speed.
    measuring = ("--measurement-mode", "count_windows", "--measurement-request-count", "10")
    steady = ("--stability-percentage", "1000000", "--concurrency-range", "2:2")
    report = tmp_path / "report.csv"
    said = output(
        program, "--service-kind", "tfserving", "-i", "grpc", "-u", address(server), "-m", model,
        *options, *measuring, *steady, "-f", report,
        LD_LIBRARY_PATH=libraries,
    )  # fmt: skip
    counted = re.search(r"Request count: (\d+)", said)
    assert counted, said
    assert answered(server, model) - before >= int(counted.group(1)) >= 10
    assert report.read_text().splitlines()[1].startswith("2,")


# --- installing -----------------------------------------------------------------------------------


def test_only_a_registry_out_of_reach_is_a_reason_to_skip(tmp_path: Path):
    def fail(text: str) -> None:
        program = f"import sys; print({text!r}, file=sys.stderr); sys.exit(1)"
        client_packages.install(sys.executable, "-c", program, cwd=tmp_path)

    with pytest.raises(pytest.skip.Exception, match=r"out of reach: .* EAI_AGAIN"):
        fail("npm error code EAI_AGAIN")
    with pytest.raises(AssertionError, match=r"from versions: 1\.0"):
        fail("no version that satisfies x==2 (from versions: 1.0)")
