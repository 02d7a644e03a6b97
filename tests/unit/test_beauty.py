"""pipelines.beauty on a folder of the same shape as the real files, with five items."""

import datetime
from pathlib import Path

import click.testing
import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines import beauty
from tfmm.config import load_config
from tfmm.errors import TfmmError
from tfmm.heldout import split_instants

ROOT = Path(__file__).resolve().parents[2]
ITEMS = """item_id,asin,title,category
1,B1,"Lacquer, Red",Beauty > Makeup > Nails > Nail Polish
2,B2,Cream,Beauty > Skin Care
3,B3,Soap,Beauty > Bath
4,B4,Comb,Beauty
5,B5,Wig,Beauty > Hair Care > Wigs
"""
DAY = datetime.timedelta(days=1)
TABLES = ["events.parquet", "judgments.parquet", "products.parquet", "queries.parquet"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """User b is too short to be tested; item 5 is nobody's."""
    folder = tmp_path / "beauty"
    folder.mkdir()
    (folder / "items.csv").write_text(ITEMS)
    (folder / "Beauty.txt").write_text("a 3 1 4 2\nb 2 3\n\nc 1 2 3\n")
    return folder


def rows(path: Path) -> list[dict]:
    return pq.read_table(path).to_pylist()


def test_every_item_becomes_a_product_with_its_category_taken_apart(source: Path, tmp_path: Path):
    assert beauty.convert(source, tmp_path / "out")["products"] == 5
    products = rows(tmp_path / "out" / "products.parquet")
    assert products[0] == {
        "product_id": "1", "title": "Lacquer, Red", "category": "Nail Polish",
        "department": "Makeup, Nails",
    }  # fmt: skip
    assert [p["category"] for p in products[1:]] == ["Skin Care", "Bath", "Beauty", "Wigs"]
    assert [p["department"] for p in products[1:]] == ["", "", "", "Hair Care"]


def test_the_last_item_is_asked_for_after_all_others(source: Path, tmp_path: Path):
    counts = beauty.convert(source, tmp_path / "out")
    assert counts == {"products": 5, "events": 7, "queries": 2, "judgments": 2}
    assert rows(tmp_path / "out" / "queries.parquet") == [
        {"query_id": "a", "history": ["3", "1", "4"], "exclude": ["3", "1", "4"]},
        {"query_id": "c", "history": ["1", "2"], "exclude": ["1", "2"]},
    ]
    assert rows(tmp_path / "out" / "judgments.parquet") == [
        {"query_id": "a", "product_id": "2", "grade": 1.0},
        {"query_id": "c", "product_id": "3", "grade": 1.0},
    ]


def test_the_log_knows_no_last_item_and_the_recipe_splits_off_the_one_before(
    source: Path, tmp_path: Path
):
    beauty.convert(source, tmp_path / "out")
    events = rows(tmp_path / "out" / "events.parquet")
    assert {e["event_type"] for e in events} == {"purchase"}
    config = load_config(ROOT / "pipelines" / "beauty.toml")
    moments = np.array([int(e["timestamp"].timestamp() * 1e6) for e in events])
    validation, test = split_instants(moments, config.split)
    parts: dict[str, list[tuple[str, str]]] = {"training": [], "validation": [], "test": []}
    for event, moment in zip(events, moments, strict=True):
        name = "training" if moment < validation else "validation" if moment < test else "test"
        parts[name].append((event["user_id"], event["product_id"]))
    assert parts == {
        "training": [("a", "3"), ("a", "1"), ("b", "2"), ("b", "3"), ("c", "1")],
        "validation": [("a", "4"), ("c", "2")],
        "test": [],
    }


def test_items_of_a_user_lie_a_day_apart(source: Path, tmp_path: Path):
    beauty.convert(source, tmp_path / "out")
    times = [e["timestamp"] for e in rows(tmp_path / "out" / "events.parquet")]
    last = beauty.LAST_DAY
    before = [3, 2, 1, 3, 2, 2, 1]
    assert times == [last - days * DAY for days in before]


def test_a_second_run_gives_the_same_bytes_and_nothing_else(source: Path, tmp_path: Path):
    out = tmp_path / "out"
    beauty.convert(source, out)
    first = [path.read_bytes() for path in sorted(out.iterdir())]
    beauty.convert(source, out)
    assert sorted(path.name for path in out.iterdir()) == TABLES
    assert [path.read_bytes() for path in sorted(out.iterdir())] == first


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("d", r"Beauty\.txt:5: expected `user item item \.\.\.`, received 'd'"),
        ("d 1 9", r"Beauty\.txt:5: expected items of items\.csv, received '9'"),
        ("c 1 2 4", r"Beauty\.txt:5: expected one line for each user, received 'c' again"),
    ],
)
def test_a_malformed_line_is_named_and_nothing_is_written(
    source: Path, tmp_path: Path, line: str, sentence: str
):
    with (source / "Beauty.txt").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(TfmmError, match=sentence):
        beauty.convert(source, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_missing_file_or_column_or_a_repeated_item_is_named(source: Path, tmp_path: Path):
    (source / "items.csv").write_text("item_id,title,category\n1,a,b\n1,a,b\n")
    with pytest.raises(TfmmError, match=r"items\.csv:3: expected an item_id of its own"):
        beauty.convert(source, tmp_path / "out")
    (source / "items.csv").write_text("item_id,title\n")
    with pytest.raises(TfmmError, match=r"items\.csv: expected the column category"):
        beauty.convert(source, tmp_path / "out")
    (source / "items.csv").write_text(ITEMS)
    (source / "Beauty.txt").unlink()
    with pytest.raises(TfmmError, match=r"Beauty\.txt: expected UTF-8 text"):
        beauty.convert(source, tmp_path / "out")


def test_the_command_prints_counts_and_exits_2_on_a_wrong_folder(source: Path, tmp_path: Path):
    run = click.testing.CliRunner().invoke
    done = run(beauty.main, [str(source), str(tmp_path / "out")])
    assert done.exit_code == 0
    assert "5 products, 7 events, 2 queries, 2 judgments" in done.output
    assert run(beauty.main, [str(tmp_path), str(tmp_path / "out")]).exit_code == 2


def test_the_recipe_follows_the_protocol():
    config = load_config(ROOT / "pipelines" / "beauty.toml")
    assert config.split.test_from == beauty.LAST_DAY.date().isoformat()
    assert config.split.validation_from == (beauty.LAST_DAY - DAY).date().isoformat()
    assert "history" in config.tower.query
    assert {5, 10, 20} <= set(config.evaluate.ks)
    assert set(config.catalogue.text) <= set(beauty.PRODUCT.names)
    assert config.train.weights.purchase > 0
