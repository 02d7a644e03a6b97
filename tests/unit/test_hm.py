"""pipelines.hm on a folder of the same shape as the real files, with four articles."""

import datetime
import zlib
from pathlib import Path

import click.testing
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import hm
from tfmm.config import load_config
from tfmm.errors import TfmmError

ARTICLES = ["0101", "0102", "0103", "0104"]
ROOT = Path(__file__).resolve().parents[2]


def purchase(day: str, article: str, price: float, user: int, channel: int = 2) -> dict:
    return {
        "t_dat": day, "article_id": article, "price": price, "sales_channel_id": channel,
        "has_image": article != "0104", "user": user,
    }  # fmt: skip


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """0104 has no photo; 0103 was never bought."""
    folder = tmp_path / "hm"
    folder.mkdir()
    text = dict.fromkeys(hm.COLUMNS.values(), "words")
    articles = [{"article_id": a, **text, "prod_name": f"Top {a}"} for a in ARTICLES]
    articles[2]["detail_desc"] = None
    pq.write_table(pa.Table.from_pylist(articles), folder / "articles.parquet")
    photos = [{"article_id": a, "jpeg": f"photo {a}".encode()} for a in ARTICLES[:3]]
    pq.write_table(pa.Table.from_pylist(photos[:2]), folder / "images-0of2.parquet")
    pq.write_table(pa.Table.from_pylist(photos[2:]), folder / "images-1of2.parquet")
    rows = [
        purchase("2018-09-20", "0101", 0.25, 1),
        purchase("2020-09-20", "0101", 0.75, 2, channel=1),
        purchase("2020-09-21", "0101", 0.5, 2),
        purchase("2020-09-21", "0104", 9.0, 2),
        purchase("2020-09-22", "0102", 1.0, 1),
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "purchases.parquet")
    return folder


def rows(path: Path) -> list[dict]:
    return pq.read_table(path).to_pylist()


def test_every_article_with_a_photo_becomes_a_product(source: Path, tmp_path: Path):
    assert hm.convert(source, tmp_path / "out") == (3, 4)
    products = rows(tmp_path / "out" / "products.parquet")
    assert [p["product_id"] for p in products] == ARTICLES[:3]
    assert products[0]["title"] == "Top 0101"
    assert products[0]["image"] == b"photo 0101"
    assert products[2]["description"] is None


def test_the_price_is_the_median_of_what_was_paid(source: Path, tmp_path: Path):
    hm.convert(source, tmp_path / "out")
    prices = [p["price"] for p in rows(tmp_path / "out" / "products.parquet")]
    assert prices == [0.5, 1.0, None]


def test_purchases_keep_their_day_shopper_and_place(source: Path, tmp_path: Path):
    hm.convert(source, tmp_path / "out")
    events = rows(tmp_path / "out" / "events.parquet")
    assert [e["product_id"] for e in events] == ["0101", "0101", "0101", "0102"]
    assert {e["event_type"] for e in events} == {"purchase"}
    assert [e["user_id"] for e in events] == ["1", "2", "2", "1"]
    assert [e["place"] for e in events] == ["online", "store", "online", "online"]
    days = [e["timestamp"].replace(tzinfo=None) for e in events]
    assert days[1] == datetime.datetime(2020, 9, 20)
    assert events[0]["timestamp"].utcoffset() == datetime.timedelta(0)


def test_small_batches_give_the_same_tables(source: Path, tmp_path: Path, monkeypatch):
    hm.convert(source, tmp_path / "whole")
    monkeypatch.setattr(hm, "ROWS_AT_ONCE", 1)
    hm.convert(source, tmp_path / "pieces")
    for name in ("products.parquet", "events.parquet"):
        assert rows(tmp_path / "whole" / name) == rows(tmp_path / "pieces" / name)


def test_a_sample_keeps_the_most_bought_articles(source: Path, tmp_path: Path):
    assert hm.convert(source, tmp_path / "out", sample=1) == (1, 3)
    assert rows(tmp_path / "out" / "products.parquet")[0]["product_id"] == "0101"


def test_articles_new_to_the_log_keep_their_test_purchases(
    source: Path, tmp_path: Path, monkeypatch
):
    fold = zlib.crc32(b"0101") % hm.FOLDS
    assert zlib.crc32(b"0102") % hm.FOLDS != fold
    monkeypatch.setattr(hm, "COLD_FOLD", fold)
    assert hm.convert(source, tmp_path / "out", cold=True) == (3, 2)
    events = rows(tmp_path / "out" / "events.parquet")
    kept = [(e["product_id"], str(e["timestamp"].date())) for e in events]
    assert kept == [("0101", hm.TEST_FROM), ("0102", "2020-09-22")]


def test_a_second_run_replaces_the_tables_and_leaves_nothing_else(source: Path, tmp_path: Path):
    out = tmp_path / "out"
    hm.convert(source, out, sample=1)
    assert hm.convert(source, out) == (3, 4)
    assert sorted(p.name for p in out.iterdir()) == ["events.parquet", "products.parquet"]


def test_a_missing_file_or_column_is_named(source: Path, tmp_path: Path):
    pq.write_table(pa.table({"article_id": ["0101"]}), source / "purchases.parquet")
    with pytest.raises(TfmmError, match=r"purchases\.parquet: expected the column price"):
        hm.convert(source, tmp_path / "out")
    (source / "purchases.parquet").unlink()
    with pytest.raises(TfmmError, match=r"purchases\.parquet: expected a Parquet file"):
        hm.convert(source, tmp_path / "out")
    with pytest.raises(TfmmError, match="expected images"):
        hm.convert(tmp_path, tmp_path / "out")


def test_the_command_prints_counts_and_exits_2_on_a_wrong_folder(source: Path, tmp_path: Path):
    run = click.testing.CliRunner().invoke
    done = run(hm.main, [str(source), str(tmp_path / "out")])
    assert done.exit_code == 0
    assert "3 products, 4 purchases" in done.output
    assert run(hm.main, [str(tmp_path), str(tmp_path / "out")]).exit_code == 2


def test_the_recipe_follows_the_protocol():
    config = load_config(ROOT / "pipelines" / "hm.toml")
    assert config.split.test_from == hm.TEST_FROM
    assert config.split.test_from == "2020-09-21"
    assert config.evaluate.mask_seen
    assert config.evaluate.target_types == config.evaluate.seen_types == ("purchase",)
    assert config.tower.query == ("text", "image", "history")
    assert set(config.catalogue.text) <= set(hm.COLUMNS)
    assert set(config.catalogue.facets) <= set(hm.COLUMNS)
