"""The ablation and the page, on a SavedModel with towers whose answers one can foresee."""

import io
from pathlib import Path
from typing import Any

import fake_parts
import pytest
from PIL import Image
from prepared import write_prepared

from tfmm import artifacts
from tfmm.config import config_to_dict
from tfmm.figures import Ablation
from tfmm.report import Report
from tfmm.workflows import evaluate as workflow
from tfmm.workflows.evaluate import Output, evaluate

COUNT = 40


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Nothing here is random, and seeding makes TensorFlow drop every function it has optimised."""


def photo(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (200, 100), (number * 6, 90, 120)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported model; its index knows the products by their titles alone."""
    version = tmp_path_factory.mktemp("model") / "1"
    fake_parts.retriever(COUNT).save(version)
    manifest = {
        "config": config_to_dict(fake_parts.config("evaluate.bootstrap_samples=50")),
        "split": {"validation_from_us": 900, "test_from_us": 1000},
        "index": {"kind": "exact"},
    }
    artifacts.write_manifest(version, manifest)
    return version


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Queries that ask for one product each: by title, by photo, by both, by another's photo."""
    products = [
        {"product_id": f"p{n}", "title": f"title {n}", "images": [photo(n)]} for n in range(COUNT)
    ]
    asked: dict[str, dict[str, Any]] = {
        "p3": {"text": "title 3"},
        "p5": {"image": photo(5)},
        "p7": {"text": "title 7", "image": photo(7)},
        "p9": {"text": "title 9", "image": photo(20)},
        "p11": {"history": ["p11"]},
    }
    queries = [{"query_id": product} | parts for product, parts in asked.items()]
    rows = [{"query_id": product, "product_id": product, "grade": 1.0} for product in asked]
    folder = tmp_path_factory.mktemp("data") / "prepared"
    return write_prepared(folder, products=products, queries=queries, judgments=rows)


@pytest.fixture(scope="module")
def report(model: Path, data: Path) -> Report:
    return evaluate(model, data, ablation=True, output=Output(progress=False))


def row(report: Report, side: str, without: str, kind: str, metric: str = "ndcg@10") -> Ablation:
    wanted = (side, without, kind, metric)
    (found,) = [r for r in report.ablations if (r.side, r.without, r.kind, r.metric) == wanted]
    return found


def test_a_query_without_its_misleading_photo_finds_its_product(report: Report):
    mixture = row(report, "query", "image", "all", "recall@10")
    assert (mixture.queries, mixture.reduced) == (2, 1)
    assert mixture.complete == mixture.served == report.row("mixture").metrics["recall@10"].mean
    assert mixture.difference.mean == pytest.approx(mixture.reduced - mixture.complete)


def test_queries_that_would_ask_nothing_are_counted_and_not_compared(report: Report):
    found = {(r.without, r.kind): r for r in report.ablations if r.side == "query"}
    # One kind of query is made of several modalities, so that all of them are the mixtures.
    assert set(found) == {("text", "all"), ("image", "all")}
    assert [(r.queries, r.nothing_left) for r in found.values()] == [(2, 1), (2, 1)]


def test_products_are_embedded_as_the_export_embeds_them(report: Report):
    # The photo finds nothing in an index of titles, and its product when products have photos.
    found = row(report, "product", "text", "photo")
    assert (found.complete, found.reduced) == (1, 1)
    assert found.served < 1
    assert row(report, "product", "image", "photo").reduced == found.served


def test_products_without_words_are_not_found_by_words(report: Report):
    assert row(report, "product", "text", "text").complete == 1
    assert row(report, "product", "text", "text").reduced < 1
    assert row(report, "product", "image", "text").reduced == 1


def test_every_kind_and_all_together_are_compared(report: Report):
    kinds = [r.kind for r in report.ablations if (r.side, r.without) == ("product", "image")]
    assert kinds == ["all"] * 2 + ["text"] * 2 + ["photo"] * 2 + ["mixture"] * 2 + ["history"] * 2
    assert row(report, "product", "image", "all").queries == 5


def test_the_table_and_the_figures_hold_the_ablation(report: Report):
    assert "one modality left out" in report.to_table()
    figures = report.to_json()["ablations"][0]
    assert figures["side"] == "query"
    assert figures["difference"].keys() == {"mean", "low", "high"}


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("embed_product", "products not ablated: the model has no signature embed_product"),
        ("embed_query", "products not ablated: the model has no signature embed_query"),
    ],
)
def test_a_model_without_the_signature_says_so(
    model: Path, data: Path, missing: str, sentence: str, monkeypatch: pytest.MonkeyPatch
):
    loaded = artifacts.load_model(model)
    del loaded.signatures[missing]
    monkeypatch.setattr(workflow, "load_model", lambda path: loaded)
    found = evaluate(model, data, ablation=True, output=Output(progress=False))
    assert found.facts["notes"][-1] == sentence
    assert {r.side for r in found.ablations} == {"query"}


def test_of_products_of_one_modality_nothing_is_left_out(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    products = [{"product_id": f"p{n}", "title": f"title {n}"} for n in range(COUNT)]
    queries = [{"query_id": "q", "text": "title 4"}]
    judged = [{"query_id": "q", "product_id": "p4", "grade": 1.0}]
    data = write_prepared(tmp_path / "data", products=products, queries=queries, judgments=judged)
    report = evaluate(model, data, ablation=True, output=Output(progress=False))
    assert report.ablations == ()
    note = "products not ablated: the model reads text of them, nothing would be left"
    assert note in capsys.readouterr().out
    assert report.row("text").metrics["hits@1"].mean == 1


def test_without_the_option_nothing_is_ablated(model: Path, data: Path):
    report = evaluate(model, data, output=Output(progress=False))
    assert report.ablations == ()
    assert "one modality left out" not in report.to_table()


def test_the_exact_scan_agrees_with_the_exact_index(model: Path, tmp_path: Path):
    """One product has a photo, which the index of titles does not know."""
    products = [{"product_id": f"p{n}", "title": f"title {n}"} for n in range(COUNT)]
    products[39]["images"] = [photo(39)]
    queries = [
        {"query_id": f"q{n}", "text": f"title {n} {n + 1}", "exclude": [f"p{n}", "p2"]}
        for n in range(6)
    ]
    judged = [
        {"query_id": f"q{n}", "product_id": f"p{m}", "grade": 1.0}
        for n in range(6)
        for m in range(3, 39, 5)
    ]
    data = write_prepared(tmp_path / "data", products=products, queries=queries, judgments=judged)
    report = evaluate(model, data, ablation=True, output=Output(progress=False))
    found = row(report, "product", "image", "text")
    assert found.reduced == pytest.approx(found.served)
    assert 0 < found.served < 1
