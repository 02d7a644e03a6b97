"""A published model before and after refreshes, beside what a fresh export would hold."""

import tfmm  # isort: skip # noqa: F401 - selects legacy Keras before TensorFlow

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from refreshable import ROWS, applied, product, same_as_fresh, write_table
from tensorflow_serving.apis import prediction_log_pb2

from tfmm import artifacts, refreshing
from tfmm.bundle import Bundle
from tfmm.errors import TfmmError
from tfmm.refreshing import opened
from tfmm.turnover import Former
from tfmm.workflows import refresh as workflow
from tfmm.workflows.embeddings import embeddings
from tfmm.workflows.inspect import inspect
from tfmm.workflows.refresh import Source, refresh

CHANGES = [
    product(3, seed=1),
    ROWS[4] | {"price": 99.5, "in_stock": False},
    {"product_id": "p7", "removed": True},
    {"product_id": "p1", "removed": True},
    product(50, title="green lamp bag", category="new"),
    product(51) | {"product_id": "late"},
]


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Nothing here is random, and seeding makes TensorFlow drop every function it has optimised."""


@pytest.fixture
def model(words_shop, tmp_path: Path) -> Path:
    """A model of that version alone."""
    shutil.copytree(words_shop[1], tmp_path / "words" / "1")
    return tmp_path / "words"


@pytest.fixture(scope="module")
def refreshed(words_shop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The second version, after `CHANGES`."""
    folder = tmp_path_factory.mktemp("refreshed")
    shutil.copytree(words_shop[1], folder / "words" / "1")
    table = write_table(folder / "changes" / "products.jsonl", CHANGES)
    return refresh(folder / "words", Source(table), progress=False)


def changed(tmp_path: Path, rows: list[dict], name: str = "products.jsonl") -> Source:
    return Source(write_table(tmp_path / "changes" / name, rows))


def test_a_refreshed_model_holds_what_a_fresh_export_would(words_shop, refreshed, tmp_path):
    same_as_fresh(words_shop[0], refreshed, applied(ROWS, CHANGES), tmp_path)


def test_a_refreshed_model_answers_by_its_products_now(refreshed):
    with opened(refreshed) as ask:
        vectors, ids = Bundle(refreshed).array("index/vectors"), Former(refreshed).ids
        words = {"text": np.array([b"green lamp bag", b"red boot"], object)}
        found, true = ask("search_text", words), ask("embed_query", words)["embedding"] @ vectors.T
        for row, scores in enumerate(true):
            best = np.argsort(-scores)[:10]
            assert [one.decode() for one in found["product_id"][row]] == [ids[one] for one in best]
            np.testing.assert_allclose(found["score"][row], scores[best], atol=1e-5)
        gone = ask(
            "similar", {"product_id": np.array([b"p7"], object), "k": np.array([20], np.int32)}
        )
        assert gone["score"][0, 0] == 1.0, "an unknown product is answered with popular ones"
        assert gone["product_id"][0, 0] == b"late"
        every = {one for row in gone["product_id"] for one in row}
        assert not every & {b"p7", b"p1"}
        histories = np.array([[b"", b"p7", b"p50"], [b"", b"", b"p50"]], object)
        recommended = ask("recommend", {"history": histories})
        assert recommended["product_id"][0].tolist() == recommended["product_id"][1].tolist()
        ruled = {"category": np.array([[b"new", b""]], object), "k": np.array([5], np.int32)}
        only = ask("serving_default", ruled)
        assert [one for one in only["product_id"][0] if one] == [b"p50"]
        dear = ask("serving_default", {"min_price": np.array([99.0], np.float32)})
        assert dear["product_id"][0, 0] == b"p4"
        assert dear["price"][0, 0] == 99.5


def test_a_refreshed_model_loads_as_any_other_does(refreshed):
    loaded = artifacts.load_model(refreshed)
    answer = loaded.signatures["similar"](product_id=["p50", "p7"], k=20)
    assert answer["score"][0, 0] < 1.0
    assert b"p50" not in answer["product_id"][0]
    assert answer["score"][1, 0] == 1.0, "an unknown product is answered with popular ones"


def test_the_manifest_says_what_a_refresh_did(refreshed):
    before = artifacts.read_manifest(refreshed.parent / "1")
    after = artifacts.read_manifest(refreshed)
    said = after["refresh"]
    assert said["from_version"] == "1"
    assert (said["added"], said["changed"], said["removed"], said["rejected"]) == (2, 2, 2, 0)
    assert said["embedded"] == 3, "two new products and one with other words"
    assert said["compared"]["recall@10"] == 1.0
    assert after["catalogue"]["products"] == after["index"]["products"] == 30
    assert after["catalogue"]["fingerprint"] != before["catalogue"]["fingerprint"]
    assert after["created"] >= before["created"]
    for key in ("config", "tower_fingerprint", "versions", "ops", "stock_serving"):
        assert after[key] == before[key]
    shown = inspect(refreshed, stock=True)
    assert "30 x " in shown
    assert "from version 1: 2 added, 2 changed, 2 removed" in shown


def test_warm_up_requests_name_products_that_are_there(refreshed):
    ids = {one.encode() for one in Former(refreshed).ids}
    named = []
    for record in tf.data.TFRecordDataset(str(refreshed / artifacts.WARMUP_REQUESTS)):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        inputs = log.predict_log.request.inputs
        for name in {"product_id", "history"} & set(inputs):
            named += inputs[name].string_val
    assert {one for one in named if one} <= ids
    assert len(named) > 3


def test_a_price_feed_touches_no_embedding(words_shop, model, tmp_path, monkeypatch):
    monkeypatch.setattr(refreshing, "product_inputs", lambda *_: pytest.fail("read content"))
    feed = [{"product_id": f"p{n}", "price": 7.0 + n, "in_stock": n % 2 == 0} for n in (2, 9, 20)]
    version = refresh(model, changed(tmp_path, feed), progress=False)
    monkeypatch.undo()
    same_as_fresh(words_shop[0], version, applied(ROWS, feed), tmp_path)
    said = artifacts.read_manifest(version)["refresh"]
    assert (said["changed"], said["embedded"]) == (3, 0)


def test_a_csv_without_a_type_changes_columns_of_their_type(words_shop, model, tmp_path):
    table = tmp_path / "feed.csv"
    table.write_text("product_id,price,rank,in_stock\np2,5.5,17,no\np3,,3,yes\n")
    version = refresh(model, Source(table), progress=False)
    two = {"price": 5.5, "rank": 17.0, "in_stock": False}
    feed = [{"product_id": "p2"} | two, {"product_id": "p3"} | two | {"price": None, "rank": 3.0}]
    feed[1]["in_stock"] = True
    same_as_fresh(words_shop[0], version, applied(ROWS, feed), tmp_path)


def test_rows_that_say_what_the_model_knows_change_nothing(model, tmp_path, monkeypatch):
    monkeypatch.setattr(refreshing, "opened", lambda _: pytest.fail("loaded the towers"))
    assert refresh(model, changed(tmp_path, ROWS[:9]), progress=False) == model / "1"
    assert artifacts.versions(model) == [1]


def test_dumped_embeddings_come_back_instead_of_the_tower(words_shop, model, tmp_path, monkeypatch):
    out = tmp_path / "vectors.parquet"
    assert embeddings(model, out) == 30
    table = pq.read_table(out)
    said = artifacts.read_manifest(model / "1")
    about = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    assert about == {
        "tower_fingerprint": said["tower_fingerprint"], "model": "words", "version": "1",
    }  # fmt: skip
    vectors = np.array(table["embedding"].to_pylist(), np.float32)
    np.testing.assert_array_equal(vectors, Bundle(model / "1").array("index/vectors"))
    one = table.slice(5, 1).set_column(0, "product_id", [["twin"]])
    pq.write_table(one, tmp_path / "twin.parquet")
    monkeypatch.setattr(refreshing, "product_inputs", lambda *_: pytest.fail("read content"))
    feed = changed(tmp_path, [{"product_id": "twin", "price": 3.0}]).products
    version = refresh(model, Source(feed, tmp_path / "twin.parquet"), progress=False)
    made = Bundle(version).array("index/vectors")
    np.testing.assert_array_equal(made[30], vectors[5])
    assert Bundle(version).array("columns/price")[30] == 3.0
    manifest = artifacts.read_manifest(version)["refresh"]
    assert (manifest["embedded"], manifest["embeddings_taken"]) == (0, 1)


def test_embeddings_of_another_tower_are_refused(model, tmp_path):
    out = tmp_path / "vectors.parquet"
    embeddings(model, out)
    table = pq.read_table(out)
    for about, found in (({"tower_fingerprint": "f" * 64}, "those of f"), ({}, "none that say")):
        pq.write_table(table.replace_schema_metadata(about), out)
        source = Source(changed(tmp_path, CHANGES).products, out)
        with pytest.raises(TfmmError, match=f"expected embeddings of the model's own.*{found}"):
            refresh(model, source, progress=False)
    assert artifacts.versions(model) == [1]


def test_bad_rows_are_left_out_and_said(model, tmp_path, capsys):
    rows = [
        {"product_id": "p2", "price": 6.0},
        {"product_id": "p3", "price": 4.0},
        {"product_id": "p3", "price": 5.0},
        {"product_id": "p4", "price": 8.0},
        {"product_id": "nobody", "price": 5.0},
    ]
    version = refresh(model, changed(tmp_path, rows), progress=False)
    assert artifacts.read_manifest(version)["refresh"]["rejected"] == 2
    rejects = (version / workflow.REJECTS).read_text().splitlines()
    reasons = [json.loads(line)["reason"] for line in rejects]
    assert reasons[0] == "expected one row of 'p3', received another"
    assert reasons[1].startswith("expected a product of the catalogue, as title, note are not")
    assert "2 rows rejected for product_id" in capsys.readouterr().err
    assert Bundle(version).array("columns/price")[3] == 4.0


REFUSED = {
    "nothing": ([], "expected at least one row, found an empty file"),
    "unknown": (
        [{"product_id": "nobody", "removed": True}],
        "removed: expected a product of the catalogue, received 'nobody'",
    ),
    "all": (
        [{"product_id": row["product_id"], "removed": True} for row in ROWS],
        "expected a product to be left, all 30 are removed",
    ),
    "half": (
        [{"product_id": "p1", "title": "red mug"}],
        "expected all columns that the product tower reads, or none of them: found title without"
        " note",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_changes_that_cannot_be_followed_are_one_sentence(case, model, tmp_path):
    rows, sentence = REFUSED[case]
    with pytest.raises(TfmmError) as caught:
        refresh(model, changed(tmp_path, rows), progress=False)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in model.iterdir()] == ["1"]


def test_a_header_alone_is_no_change(model, tmp_path):
    (tmp_path / "products.csv").write_text("product_id,price\n")
    with pytest.raises(TfmmError, match="expected at least one product to add, change or remove"):
        refresh(model, Source(tmp_path / "products.csv"), progress=False)


def test_an_exact_index_has_nothing_to_compact(model, monkeypatch):
    assert refresh(model, Source(compact=True), progress=False) == model / "1"
    monkeypatch.chdir(model / "1")
    assert refresh(Path("."), Source(compact=True), progress=False) == model / "1"


def test_nothing_asked_for_is_refused(model):
    with pytest.raises(TfmmError, match="expected --products or --compact, received neither"):
        refresh(model, Source(), progress=False)


def test_versions_that_cannot_be_refreshed_say_so(model, tmp_path):
    source = changed(tmp_path, CHANGES)
    (model / "1" / "assets.extra" / "products.npz").unlink()
    with pytest.raises(TfmmError, match="as older exports are; export it again"):
        refresh(model, source, progress=False)
    (model / "1" / artifacts.MANIFEST).unlink()
    with pytest.raises(TfmmError, match="expected a version that tfmm exported, found another"):
        refresh(model, source, progress=False)


def test_a_version_published_in_the_meantime_is_not_undone(model, tmp_path, monkeypatch):
    check = workflow.check_version

    def slow(version: Path, **told):
        shutil.copytree(model / "1", model / "2")
        return check(version, **told)

    monkeypatch.setattr(workflow, "check_version", slow)
    feed = changed(tmp_path, [{"product_id": "p2", "price": 3.0}])
    with pytest.raises(TfmmError, match="expected version 1 to be the newest still, found 2"):
        refresh(model, feed, progress=False)
    assert sorted(path.name for path in model.iterdir()) == ["1", "2"]


@pytest.mark.parametrize("variable", ["index/vectors", "columns/product_id"])
def test_a_version_that_answers_otherwise_is_not_published(variable, model, tmp_path, monkeypatch):
    write = Bundle.write

    def wrong(self: Bundle, version: Path, tensors) -> None:
        write(self, version, {**tensors, variable: self.array(variable)[::-1]})

    monkeypatch.setattr(Bundle, "write", wrong)
    feed = changed(tmp_path, [{"product_id": "p2", "price": 3.0}])
    with pytest.raises(TfmmError, match=r"answers otherwise|finds"):
        refresh(model, feed, progress=False)
    assert [path.name for path in model.iterdir()] == ["1"]
