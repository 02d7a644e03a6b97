"""`tfmm.Client` and `tfmm search --server` against a running server: the answers of the model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_shop
from sample_media import photo, sound

import tfmm
from tfmm.question import Asked
from tfmm.serving.status import Code
from tfmm.workflows import search as workflow
from tfmm.workflows.ask import ask

PRODUCTS = tiny_shop.products()


@pytest.fixture(scope="module")
def client(server):
    with tfmm.Client(f"127.0.0.1:{server.port}", "tiny", timeout_s=120) as opened:
        yield opened


@pytest.fixture(scope="module")
def loaded(shop):
    return tfmm.load_model(shop[1])


def expected(loaded, **inputs) -> list[tuple[str, float]]:
    answer = loaded.signatures["serving_default"](**inputs)
    pairs = zip(answer["product_id"][0], answer["score"][0], strict=True)
    return [(product.decode(), float(score)) for product, score in pairs if product]


PHOTO, VOICE = PRODUCTS[5]["image"], tiny_shop.voice(3, 5)
QUERIES = [
    {"text": "red shirt"},
    {"text": "蓝色杯子", "k": 3},
    {"image": PHOTO},
    {"audio": VOICE},
    {"history": ["p01", "p05"], "exclude": ["p01"]},
    {"text": "red", "image": PHOTO, "audio": VOICE, "history": ["p07"], "k": 20},
    {},
]


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: "+".join(query) or "empty")
def test_a_query_is_answered_as_by_the_model_in_this_process(client, loaded, query):
    inputs = {name: [value] for name, value in query.items()}
    hits = client.search(**query)
    scores = dict(expected(loaded, **inputs))
    assert len(hits) == query.get("k", 10)
    assert {hit.product_id for hit in hits} == set(scores)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    for hit in hits:
        assert hit.score == pytest.approx(scores[hit.product_id], abs=1e-5)
        product = PRODUCTS[int(hit.product_id[1:])]
        assert hit.fields == {"title": product["title"], "price": product["price"]}


def test_several_queries_go_in_one_call_and_each_gets_what_it_gets_alone(client):
    alone = [client.search(**query) for query in QUERIES]
    together = client.search_many([tfmm.Query(**query) for query in QUERIES])
    for one, other in zip(alone, together, strict=True):
        assert [h.product_id for h in one] == [h.product_id for h in other]
        np.testing.assert_allclose([h.score for h in one], [h.score for h in other], atol=1e-5)
    assert [len(hits) for hits in client.search_many([tfmm.Query()] * 2)] == [10, 10]
    assert client.search_many([]) == []


def test_files_are_read_and_filters_are_kept(client, tmp_path: Path):
    (tmp_path / "photo").write_bytes(PHOTO)
    (tmp_path / "voice").write_bytes(VOICE)
    asked = client.search(image=tmp_path / "photo", audio=str(tmp_path / "voice"))
    assert asked == client.search(image=PHOTO, audio=VOICE)
    filters = {"brand": ["brand1"], "min_price": 7, "in_stock_only": True, "max_per_brand": 2}
    found = [PRODUCTS[int(h.product_id[1:])] for h in client.search(text="red", filters=filters)]
    assert len(found) == 2
    for product in found:
        assert (product["brand"], product["in_stock"]) == ("brand1", True)
        assert product["price"] >= 7
    with pytest.raises(tfmm.ClientError, match=r"expected inputs among .*brand.*, received colour"):
        client.search(text="red", filters={"colour": "red"})


def test_similar_products_and_any_other_signature(client, loaded):
    similar = client.similar("p03", exclude=["p04"], k=5)
    answer = loaded.signatures["similar"](product_id="p03", exclude=["p04"], k=5)
    assert [hit.product_id.encode() for hit in similar] == answer["product_id"][0].tolist()
    embedding = client.predict("embed_query", [{"text": "red"}, {"image": PHOTO}])["embedding"]
    assert embedding.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-4)
    with pytest.raises(tfmm.ClientError, match=r"expected signatures among .*, received nothing"):
        client.predict("nothing", [{}])


def test_what_the_model_refuses_is_its_sentence(client):
    with pytest.raises(tfmm.ClientError, match=r"^k: expected 1\.\.20, received 21$") as caught:
        client.search(text="red", k=21)
    assert caught.value.code == Code.INVALID_ARGUMENT


def test_a_model_or_a_version_that_is_not_there(server):
    address = f"127.0.0.1:{server.port}"
    with (
        tfmm.Client(address, "gone") as client,
        pytest.raises(tfmm.ClientError, match=r"expected a server of model 'gone'.*Latest\(gone\)"),
    ):
        client.search(text="red")
    with (
        tfmm.Client(address, "tiny", version=9) as client,
        pytest.raises(tfmm.ClientError, match=r"Specific\(tiny, 9\)") as caught,
    ):
        client.search(text="red")
    assert caught.value.code == Code.NOT_FOUND


def test_a_model_of_somebody_else_is_asked_by_its_own_signatures(server):
    with tfmm.Client(f"unix:{server.socket}", "half", version=123) as client:
        answer = client.predict("serving_default", [{"x": 2.0}, {"x": 4}])
        assert answer["y"].tolist() == [[3.0], [4.0]]
        with pytest.raises(tfmm.ClientError, match="expected inputs among x, received text"):
            client.search(text="red")


def test_a_whole_query_needs_no_tensorflow(server):
    program = (
        f"import sys, tfmm; client = tfmm.Client('127.0.0.1:{server.port}', 'tiny', timeout_s=120);"
        "print(client.search(text='red shirt', k=1)[0].product_id);"
        "print({'tensorflow', 'tensorflow_serving', 'tf_keras'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1] == "set()"


@pytest.mark.parametrize(
    "asked",
    [
        {"text": "red shirt", "k": 4},
        {"image": "photo.webp", "audio": "voice.flac"},
        {"like": ("p03",)},
        {"like": ("p03", "p04"), "text": "mug"},
    ],
    ids="+".join,
)
def test_the_command_answers_as_the_local_one(client, loaded, monkeypatch, tmp_path: Path, asked):
    monkeypatch.setattr(workflow, "load_model", lambda path: loaded)
    (tmp_path / "photo.webp").write_bytes(photo("WEBP"))
    (tmp_path / "voice.flac").write_bytes(sound("FLAC", rate_hz=44_100))
    for name in ("image", "audio"):
        if name in asked:
            asked = asked | {name: tmp_path / asked[name]}
    assert str(ask(client, Asked(**asked))) == str(workflow.search(loaded.path, Asked(**asked)))


def test_the_command_line_prints_a_table_or_one_line(server):
    def run(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tfmm", "search", *options]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    where = ("--server", f"127.0.0.1:{server.port}", "--model", "tiny")
    found = run(*where, "--version", "1", "--text", "red shirt", "-k", "2")
    assert found.returncode == 0, found.stderr
    assert [line.split()[0] for line in found.stdout.splitlines() if line.strip()][-2:] == [
        "1",
        "2",
    ]
    for refused, sentence in (
        (run(*where, "--like", "p99"), "tfmm: --like: expected ids of products in 127.0.0.1:"),
        (run(*where, "saved_models/x", "--text", "red"), "tfmm: search: expected SAVED_MODEL or"),
    ):
        assert refused.returncode == 2
        assert refused.stderr.startswith(sentence)
        assert len(refused.stderr.splitlines()) == 1
