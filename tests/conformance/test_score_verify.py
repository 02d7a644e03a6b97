"""`tfmm score --verify` against a running server: what a batch has written is what it answers."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_shop

from tfmm.errors import RequirementMissedError, TfmmError
from tfmm.scoring.rows import Asked
from tfmm.scoring.verification import difference
from tfmm.scoring.work import Settings
from tfmm.workflows.score import Running, score

PRODUCTS = tiny_shop.products()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Queries of every kind with rules and long lists, the products, and a log."""
    folder = tiny_shop.write(tmp_path_factory.mktemp("inputs") / "shop")
    asked, _ = tiny_shop.queries()
    ids = [str(product["product_id"]) for product in PRODUCTS]
    more: list[dict[str, object]] = [
        {"query_id": "rules", "text": "mug", "filters": '{"brand": ["brand1"], "max_price": 20}'},
        {"query_id": "long", "history": ids[:9], "exclude": ids[:9], "k": 12},
        {"query_id": "bad", "k": 0},
        {"query_id": "empty"},
    ]
    names = ("query_id", "text", "image", "audio", "history", "exclude", "k", "filters")
    rows = [{name: row.get(name) for name in names} for row in [*asked, *more]]
    pq.write_table(pa.Table.from_pylist(rows), folder / "queries.parquet", row_group_size=20)
    return folder


@pytest.mark.parametrize(
    ("settings", "form"),
    [
        (Settings(asked=Asked(k=7), block_rows=20), "parquet"),
        (Settings("shoppers", Asked(), exclude=("purchase", "click"), block_rows=100), "jsonl"),
        (Settings("similar", Asked(k=5, filters={"in_stock_only": True})), "tfrecord"),
    ],
    ids=["queries", "shoppers", "similar"],
)
def test_a_server_answers_what_the_batch_has_written(
    server, shop, inputs, tmp_path, capsys, settings, form
):
    whole = Settings(**{**settings.__dict__, "form": form})
    running = Running(verify=1000, server=f"127.0.0.1:{server.port}", progress=False)
    manifest = score(shop[1], inputs, tmp_path / "out", settings=whole, running=running)
    written = manifest["rows"]["written"]
    assert written > 5
    assert f"verified {written} rows with {running.server}\n" in capsys.readouterr().err
    some = Running(verify=3, server=running.server, progress=False)
    score(shop[1], inputs, tmp_path / "out", settings=whole, running=some)
    assert "verified 3 rows" in capsys.readouterr().err


def test_an_answer_that_differs_is_an_error_and_nothing_is_published(
    server, shop, inputs, tmp_path, monkeypatch
):
    from tfmm.scoring import scorer

    original = scorer.hits_of

    def worse(answer, *rest):
        return original({**answer, "score": answer["score"] + 2e-5}, *rest)

    monkeypatch.setattr(scorer, "hits_of", worse)
    running = Running(verify=2, server=f"127.0.0.1:{server.port}", progress=False)
    message = r"--verify: part-00000\.parquet, row .*: expected at rank 1 the score .* of 127"
    with pytest.raises(RequirementMissedError, match=message):
        score(shop[1], inputs, tmp_path / "out", running=running)
    assert not (tmp_path / "out").exists()


def test_without_a_server_there_is_nothing_to_verify_with(shop, inputs, tmp_path):
    with pytest.raises(TfmmError, match="--verify: expected --server HOST:PORT"):
        score(shop[1], inputs, tmp_path / "out", running=Running(verify=2, progress=False))


SERVED = [("a", 0.9), ("b", 0.5), ("c", 0.5), ("d", 0.1)]


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        (SERVED, ""),
        ([("a", 0.900005), ("c", 0.5), ("b", 0.499995), ("d", 0.1)], ""),
        ([("a", 0.9), ("b", 0.5), ("c", 0.5), ("e", 0.1)], ""),
        (SERVED[:3], "expected the 4 hits, found 3"),
        ([("a", 0.9), ("b", 0.5), ("c", 0.5), ("d", 0.1001)], "expected at rank 4 the score 0.1"),
        ([("a", 0.9), ("x", 0.5), ("c", 0.5), ("d", 0.1)], "expected x with the score or at the"),
        ([("b", 0.9), ("a", 0.5), ("c", 0.5), ("d", 0.1)], "expected b with the score or at the"),
    ],
)
def test_what_counts_as_a_difference(written, problem):
    assert difference(written, SERVED).startswith(problem)
    assert bool(difference(written, SERVED)) == bool(problem)
