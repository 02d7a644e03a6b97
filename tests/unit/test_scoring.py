"""`tfmm score` on a model of hashed words: the answers of its signatures, in files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_parts
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scoring_shop
from folders import tree
from prepared import write_prepared
from sample_media import photo, sound

import tfmm
from tfmm.errors import RecordError, TfmmError
from tfmm.heldout import Query
from tfmm.records.media import normalise_sound
from tfmm.records.photo import normalise_photo
from tfmm.records.tables import SourceRow
from tfmm.scoring.rows import Asked, Checker
from tfmm.scoring.scorer import Scoring
from tfmm.scoring.takes import Takes
from tfmm.scoring.work import Settings
from tfmm.searcher import Searcher
from tfmm.workflows.score import Running, score

QUIET = Running(progress=False)
PHOTO, VOICE = photo("WEBP"), sound("FLAC", "PCM_16", rate_hz=22_050)
HIT = ("product_id", "score", "title", "price")
LONG = [f"p{number}" for number in range(9)]
QUERIES: list[dict[str, Any]] = [
    {"query_id": "words", "text": "title 3"},
    {"query_id": "photo", "image": PHOTO},
    {"query_id": "voice", "audio": VOICE, "k": 2},
    {"query_id": "past", "history": ["p1", "p5"], "exclude": ["p1"]},
    {"query_id": "long", "history": LONG, "exclude": LONG, "k": 7},
    {"query_id": "all", "text": "a", "image": PHOTO, "audio": VOICE, "history": ["p2"], "k": 20},
    {"query_id": "rules", "text": "b", "filters": {"category": ["c1", "c2"], "max_price": 20}},
    {"query_id": "none", "text": "b", "filters": {"category": ["nothing"]}},
    {"query_id": "empty"},
]


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Nothing here is random, and seeding makes TensorFlow drop every function it has optimised."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scoring_shop.publish(tmp_path_factory.mktemp("models") / "fake")


@pytest.fixture(scope="module")
def loaded(model: Path) -> tfmm.artifacts.LoadedModel:
    return tfmm.load_model(model)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Rows as Parquet, with rules as JSON."""
    whole = [
        {name: row.get(name) for name in ("query_id", "text", "image", "audio", "history")}
        | {"exclude": row.get("exclude"), "k": row.get("k")}
        | {"filters": json.dumps(row["filters"]) if "filters" in row else None}
        for row in rows
    ]
    pq.write_table(pa.Table.from_pylist(whole), path, row_group_size=4)
    return path


def answers(out: Path) -> list[dict[str, Any]]:
    names = json.loads((out / "manifest.json").read_text())["files"]
    return [row for name in names for row in pq.read_table(out / name).to_pylist()]


def online(loaded: Any, row: dict[str, Any]) -> list[dict[str, Any]]:
    """The hits of one query alone, by the signature that a server would be asked."""
    inputs = {name: row[name] for name in ("text",) if name in row}
    inputs |= {name: [row[name][-4:]] for name in ("history",) if name in row}
    inputs |= {name: [row[name][-3:]] for name in ("exclude",) if name in row}
    if "image" in row:
        inputs["image"] = normalise_photo(PHOTO, max_pixels=10**7)
    if "audio" in row:
        inputs["audio"] = normalise_sound(VOICE, max_seconds=60)
    inputs |= row.get("filters", {})
    k = row.get("k", 5)
    answer = loaded.signatures["serving_default"](**inputs, k=20)
    hits = [
        {"product_id": i.decode(), "score": float(s), "title": t.decode(), "price": float(p)}
        for i, s, t, p in zip(*(answer[name][0] for name in HIT), strict=True)
    ]
    return [hit for hit in hits if hit["product_id"] not in ("", *row.get("exclude", ()))][:k]


def same_hits(given: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    """Scores within 1e-5, the same products but for ties."""
    assert [hit["rank"] for hit in given] == list(range(1, len(wanted) + 1))
    scores = [hit["score"] for hit in wanted]
    np.testing.assert_allclose([hit["score"] for hit in given], scores, atol=1e-5)
    known = {hit["product_id"]: hit for hit in wanted}
    for hit in given:
        if hit["score"] > scores[-1] + 1e-5:
            other = known[hit["product_id"]]
            assert (hit["title"], hit["price"]) == (other["title"], other["price"])


def test_every_query_gets_the_hits_that_the_signature_gives_it_alone(model, loaded, tmp_path):
    source = write(tmp_path / "queries.parquet", QUERIES)
    manifest = score(model, source, tmp_path / "out", running=QUIET)
    assert manifest["rows"]["written"] == len(QUERIES)
    found = answers(tmp_path / "out")
    assert [row["query_id"] for row in found] == [row["query_id"] for row in QUERIES]
    assert [row["row"] for row in found] == list(range(len(QUERIES)))
    for row, asked in zip(found, QUERIES, strict=True):
        same_hits(row["hits"], online(loaded, asked))
    by_id = {row["query_id"]: row["hits"] for row in found}
    assert len(by_id["long"]) == 7
    assert not {hit["product_id"] for hit in by_id["long"]} & set(LONG)
    assert by_id["none"] == []


@pytest.mark.parametrize("block_rows", [1, 4, 5])
def test_the_answers_do_not_depend_on_how_rows_fall_into_blocks(model, tmp_path, block_rows):
    source = write(tmp_path / "queries.parquet", QUERIES)
    score(model, source, tmp_path / "whole", running=QUIET)
    cut = Settings(block_rows=block_rows)
    manifest = score(model, source, tmp_path / "cut", settings=cut, running=QUIET)
    assert len(manifest["files"]) > 1
    for row, other in zip(answers(tmp_path / "cut"), answers(tmp_path / "whole"), strict=True):
        assert (row["row"], row["query_id"]) == (other["row"], other["query_id"])
        same_hits(row["hits"], other["hits"])


def test_more_excluded_products_than_the_input_holds_are_left_out_as_evaluation_does(
    model, loaded, tmp_path
):
    source = write(tmp_path / "queries.parquet", QUERIES)
    score(model, source, tmp_path / "out", settings=Settings(asked=Asked(k=6)), running=QUIET)
    row = next(row for row in answers(tmp_path / "out") if row["query_id"] == "long")
    query = Query("q", {}, history=tuple(LONG), exclude=tuple(LONG))
    searcher = Searcher(loaded, fake_parts.config(), 7)
    assert searcher.rank([query]) == [[hit["product_id"] for hit in row["hits"]]]


BAD = [
    ({"text": 3.5}, None),
    ({"k": 0}, "k: expected 1..20, received 0"),
    ({"k": 21}, "k: expected 1..20, received 21"),
    ({"image": "gone.jpg"}, "image: expected a readable file, received 'gone.jpg'"),
    ({"image": "../x.jpg"}, "image: expected a path inside the dataset folder"),
    ({"audio": {"b64": "AAAA"}}, "audio: expected WAV"),
    ({"history": [""]}, None),
    ({"history": ["p1"], "history_event": ["click", "cart"]}, "history_event: expected as many"),
    ({"filters": {"colour": "red"}}, "filters: expected names among brand, category"),
    ({"filters": {"max_price": "much"}}, "filters: expected a number, received 'much'"),
    ({"filters": {"category": ["a", "b", "c"]}}, "filters: category: expected at most 2 values"),
    ({"filters": "red"}, "filters: expected JSON, received 'red'"),
]


def test_a_bad_row_is_put_aside_with_its_reason_and_the_others_go_on(model, tmp_path):
    source = tmp_path / "queries.jsonl"
    lines = [json.dumps({"query_id": f"q{n}"} | row) for n, (row, _) in enumerate(BAD)]
    source.write_text("\n".join(["{", *lines, "3"]))
    running = Running(max_rejects=1, progress=False)
    manifest = score(model, source, tmp_path / "out", running=running)
    rejects = list(map(json.loads, (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()))
    rows = manifest["rows"]
    assert rows["read"] == len(BAD) + 2 == rows["written"] + rows["rejected"]
    assert len(answers(tmp_path / "out")) == rows["written"] == 2
    assert manifest["input"] == {"read": rows["read"], "rejected": rows["rejected"]}
    assert {reject["row"] for reject in rejects[1:-1]} == {
        number for number, (_, reason) in enumerate(BAD, start=2) if reason
    }
    for reject in rejects[1:-1]:
        told = f"{reject['field']}: {reject['reason']}"
        assert told.startswith(str(BAD[reject["row"] - 2][1]).rstrip())
    assert [rejects[0]["field"], rejects[-1]["reason"]] == [
        "row", "expected a JSON object, received 3",
    ]  # fmt: skip
    assert {(reject["table"], reject["file"]) for reject in rejects} == {
        ("queries", "queries.jsonl")
    }


def test_too_many_bad_rows_are_an_error_and_what_was_scored_is_kept(model, tmp_path):
    (tmp_path / "queries.csv").write_text("text,k\nred,1\nblue,x\n")
    out = tmp_path / "out"
    with pytest.raises(TfmmError, match=r"at most 5\.0% bad rows, found 1 of 2; all are in .*out"):
        score(model, tmp_path / "queries.csv", out, running=QUIET)
    assert not out.exists()
    assert "expected a number" in (tmp_path / "out.rejects.jsonl").read_text()
    running = Running(max_rejects=0.5, progress=False)
    assert score(model, tmp_path / "queries.csv", out, running=running)["rows"]["written"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "queries.csv"]


def test_a_modality_that_the_model_does_not_read_is_a_reason(model):
    takes = Takes.of(model, "queries")
    words = replace(takes.config, tower=replace(takes.config.tower, query=("text",)))
    checker = Checker(replace(takes, config=words), Asked())
    assert checker.query(SourceRow(1, {"text": "a"}), 0).inputs == {"text": "a"}
    with pytest.raises(RecordError, match="expected a query of text, received history"):
        checker.query(SourceRow(1, {"history": ["p1"]}), 0)


def test_columns_that_nobody_reads_are_said_and_none_at_all_is_an_error(model, tmp_path, capsys):
    (tmp_path / "queries.csv").write_text("query_id,text,colour\nq,red,blue\n")
    score(model, tmp_path / "queries.csv", tmp_path / "out", running=QUIET)
    assert capsys.readouterr().err == "columns not read: colour\n"
    (tmp_path / "ids.csv").write_text("query_id\nq\n")
    with pytest.raises(TfmmError, match=r"expected a column among text, .*, found query_id"):
        score(model, tmp_path / "ids.csv", tmp_path / "out2", running=QUIET)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "folder", "prepared"])
def test_every_format_of_input_gives_the_same(model, tmp_path, kind):
    rows = [{"query_id": f"q{n}", "text": f"title {n}", "history": ["p1", "p2"]} for n in range(5)]
    reference = write(tmp_path / "reference.parquet", rows)
    source = tmp_path / f"queries.{kind}"
    match kind:
        case "csv":
            lines = [f"{row['query_id']},{row['text']},p1|p2" for row in rows]
            source.write_text("\n".join(["query_id,text,history", *lines]))
        case "jsonl":
            source.write_text("\n".join(map(json.dumps, rows)))
        case "parquet":
            write(source, rows)
        case "prepared":
            write_prepared(source, queries=rows)
        case "folder":
            source.mkdir()
            write(source / "a.parquet", rows[:2])
            (source / "b.jsonl").write_text("\n".join(map(json.dumps, rows[2:])))
    cut = Settings(block_rows=3)
    score(model, source, tmp_path / "out", settings=cut, running=QUIET)
    score(model, reference, tmp_path / "wanted", settings=cut, running=QUIET)
    assert answers(tmp_path / "out") == answers(tmp_path / "wanted")


def test_the_core_takes_and_gives_record_batches(model, tmp_path):
    rows = [*QUERIES[:3], {"query_id": "bad", "k": 50}, *QUERIES[3:]]
    source = write(tmp_path / "queries.parquet", rows)
    scoring = Scoring(str(model))
    batches = list(scoring(pq.ParquetFile(source).iter_batches(batch_size=4)))
    table = pa.Table.from_batches(batches, schema=scoring.schema())
    assert table["query_id"].to_pylist() == [row["query_id"] for row in rows]
    bad = table.filter(pa.compute.is_valid(table["reject"])).to_pylist()
    assert [(row["query_id"], row["hits"], row["reject"]) for row in bad] == [
        ("bad", None, {"field": "k", "reason": "expected 1..20, received 50"})
    ]


def test_similar_products_of_every_product(model, loaded, tmp_path):
    ids = [f"p{number}" for number in range(42)]
    (tmp_path / "products.csv").write_text("\n".join(["product_id", *ids]))
    asked = Asked(k=4, filters={"in_stock_only": "true"})
    settings = Settings("similar", asked, fields=("title",), block_rows=10)
    running = Running(max_rejects=0.1, progress=False)
    score(model, tmp_path / "products.csv", tmp_path / "out", settings=settings, running=running)
    found = answers(tmp_path / "out")
    assert [row["product_id"] for row in found] == ids[:40]
    wanted = loaded.signatures["similar"](
        product_id=ids[:40], k=[4] * 40, in_stock_only=[True] * 40
    )
    for number, row in enumerate(found):
        assert [set(hit) for hit in row["hits"]] == [{"rank", "product_id", "score", "title"}] * 4
        np.testing.assert_allclose(
            [hit["score"] for hit in row["hits"]], wanted["score"][number], atol=1e-5
        )
        assert ids[number] not in {hit["product_id"] for hit in row["hits"]}
    assert (
        "expected a product of the model, received 'p41'"
        in (tmp_path / "out" / "rejects.jsonl").read_text()
    )


def test_json_lines_and_examples_hold_what_parquet_holds(model, tmp_path):
    import tensorflow as tf

    source = write(tmp_path / "queries.parquet", QUERIES)
    for form in ("parquet", "jsonl", "tfrecord"):
        score(model, source, tmp_path / form, settings=Settings(form=form), running=QUIET)
    wanted = answers(tmp_path / "parquet")
    lines = (tmp_path / "jsonl" / "part-00000.jsonl").read_text().splitlines()
    assert list(map(json.loads, lines)) == wanted
    path = str(tmp_path / "tfrecord" / "part-00000.tfrecord.gz")
    records = tf.data.TFRecordDataset(path, compression_type="GZIP").as_numpy_iterator()
    for record, row in zip(records, wanted, strict=True):
        held = tf.train.Example.FromString(record).features.feature
        assert held["query_id"].bytes_list.value[0].decode() == row["query_id"]
        ids = [hit["product_id"].encode() for hit in row["hits"]]
        assert list(held["hits/product_id"].bytes_list.value) == ids
        scores = [hit["score"] for hit in row["hits"]]
        assert list(held["hits/score"].float_list.value) == scores
        assert list(held["hits/rank"].int64_list.value) == list(range(1, len(ids) + 1))


@pytest.mark.parametrize("form", ["parquet", "jsonl", "tfrecord"])
def test_the_same_job_gives_the_same_bytes_and_is_not_done_twice(model, tmp_path, form):
    source = write(tmp_path / "queries.parquet", QUERIES)
    settings = Settings(form=form, block_rows=4)
    first = score(model, source, tmp_path / "a", settings=settings, running=QUIET)
    score(model, source, tmp_path / "b", settings=settings, running=QUIET)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    (tmp_path / "a" / next(iter(first["files"]))).write_bytes(b"mine")
    assert score(model, source, tmp_path / "a", settings=settings, running=QUIET) == first
    assert (tmp_path / "a" / next(iter(first["files"]))).read_bytes() == b"mine"
    score(model, source, tmp_path / "a", settings=Settings(asked=Asked(k=1)), running=QUIET)
    assert len(answers(tmp_path / "a")[0]["hits"]) == 1


WRONG = [
    ({"settings": Settings(asked=Asked(k=21))}, r"-k: expected 1\.\.20, received 21"),
    ({"settings": Settings(asked=Asked(filters={"x": 1}))}, "--filter: expected names among"),
    ({"settings": Settings(fields=("colour",))}, "--fields: expected columns among .*title"),
    ({"source": "gone.csv"}, "expected a file or a folder to score, found none"),
    ({"source": "queries.txt"}, "expected a Parquet, CSV or JSONL file"),
    ({"out": "mine"}, "expected a new or a prepared folder, found one with other files"),
    ({"out": "shop"}, "expected a new folder or an earlier result, found another one"),
    ({"out": "."}, "expected a folder to write to, received the dataset's own"),
    ({"model": "mine"}, "expected a SavedModel or a folder of its versions"),
]


@pytest.mark.parametrize(("given", "message"), WRONG)
def test_what_cannot_be_done_is_one_sentence(model, tmp_path, given, message):
    for folder, name in (("mine", "letter.txt"), ("shop", "manifest.json")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text("{}")
    (tmp_path / "queries.csv").write_text("text\nred\n")
    (tmp_path / "queries.txt").write_text("text\nred\n")
    saved_model = tmp_path / given["model"] if "model" in given else model
    source = tmp_path / given.get("source", "queries.csv")
    with pytest.raises(TfmmError, match=message):
        score(
            saved_model, source, tmp_path / given.get("out", "out"),
            settings=given.get("settings", Settings()), running=QUIET,
        )  # fmt: skip
    assert (tmp_path / "mine" / "letter.txt").read_text() == "{}"
