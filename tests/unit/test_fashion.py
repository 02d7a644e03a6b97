"""pipelines.fashion on a folder of the same shape as the real files, with six articles."""

import zlib
from pathlib import Path

import click.testing
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import fashion
from tfmm.config import load_config
from tfmm.errors import TfmmError

ROOT = Path(__file__).resolve().parents[2]
TEST = [str(n) for n in range(1000) if zlib.crc32(str(n).encode()) % 10 == 1][:2]
TRAIN = [str(n) for n in range(1000) if zlib.crc32(str(n).encode()) % 10 != 1][:2]
NO_PHOTO, NO_NAME = "5001", "5002"
NAMES = {
    TRAIN[0]: "Red Shirt", TEST[0]: " Blue Jeans ", TRAIN[1]: "Grey Sock", TEST[1]: "Red Hat, Wool",
    NO_PHOTO: "Bag", NO_NAME: "",
}  # fmt: skip


def photo(number: str) -> bytes:
    return f"photo {number}".encode()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "fashion"
    folder.mkdir()
    lines = [f'{number},Men,"{name}",True' for number, name in NAMES.items()]
    header = "id,gender,productDisplayName,has_image"
    (folder / "styles.csv").write_text("\n".join([header, *lines, ""]))
    shown = [number for number in NAMES if number != NO_PHOTO]
    for part, numbers in enumerate((shown[:3], shown[3:])):
        rows = [{"id": int(number), "jpeg": photo(number)} for number in numbers]
        pq.write_table(pa.Table.from_pylist(rows), folder / f"images-{part}of2.parquet")
    return folder


def rows(path: Path) -> list[dict]:
    return pq.read_table(path).to_pylist()


def test_names_find_photos_that_come_without_a_word(source: Path, tmp_path: Path):
    fashion.convert(source, tmp_path)
    folder = tmp_path / "text-to-photo"
    assert rows(folder / "products.parquet") == [
        {"product_id": n, "title": None, "image": photo(n)} for n in TEST
    ]
    assert rows(folder / "queries.parquet") == [
        {"query_id": TEST[0], "text": "Blue Jeans", "image": None},
        {"query_id": TEST[1], "text": "Red Hat, Wool", "image": None},
    ]
    judgments = [{"query_id": n, "product_id": n, "grade": 1.0} for n in TEST]
    assert rows(folder / "judgments.parquet") == judgments


def test_photos_find_names_that_come_without_a_photo(source: Path, tmp_path: Path):
    fashion.convert(source, tmp_path)
    folder = tmp_path / "photo-to-text"
    assert rows(folder / "products.parquet") == [
        {"product_id": TEST[0], "title": "Blue Jeans", "image": None},
        {"product_id": TEST[1], "title": "Red Hat, Wool", "image": None},
    ]
    assert rows(folder / "queries.parquet") == [
        {"query_id": n, "text": None, "image": photo(n)} for n in TEST
    ]
    judgments = [{"query_id": n, "product_id": n, "grade": 1.0} for n in TEST]
    assert rows(folder / "judgments.parquet") == judgments


def test_training_knows_no_test_article_and_no_product_of_two_modalities(
    source: Path, tmp_path: Path
):
    counts = fashion.convert(source, tmp_path)
    assert counts["train"] == {"products": 4, "events": 2}
    products = rows(tmp_path / "train" / "products.parquet")
    assert products[:2] == [
        {"product_id": f"{TRAIN[0]} photo", "title": None, "image": photo(TRAIN[0])},
        {"product_id": f"{TRAIN[0]} name", "title": "Red Shirt", "image": None},
    ]
    assert {p["product_id"].split()[0] for p in products} == set(TRAIN)


def test_a_name_asks_for_its_photo(source: Path, tmp_path: Path):
    fashion.convert(source, tmp_path)
    events = rows(tmp_path / "train" / "events.parquet")
    assert [(e["query_text"], e["product_id"]) for e in events] == [
        ("Red Shirt", f"{TRAIN[0]} photo"),
        ("Grey Sock", f"{TRAIN[1]} photo"),
    ]
    assert len({e["session_id"] for e in events}) == 2


def test_a_second_run_gives_the_same_bytes(source: Path, tmp_path: Path):
    def content() -> list[bytes]:
        fashion.convert(source, tmp_path / "out")
        return [path.read_bytes() for path in sorted((tmp_path / "out").rglob("*.parquet"))]

    assert len(content()) == 8
    assert content() == content()


def test_a_photo_of_nobody_or_met_twice_is_named(source: Path, tmp_path: Path):
    stray = pa.table({"id": [77], "jpeg": [b"photo"]})
    pq.write_table(stray, source / "images-2of2.parquet")
    with pytest.raises(TfmmError, match=r"images-2of2\.parquet: expected ids of styles\.csv"):
        fashion.convert(source, tmp_path / "out")
    twice = pa.table({"id": [int(TEST[0])], "jpeg": [b"photo"]})
    pq.write_table(twice, source / "images-2of2.parquet")
    with pytest.raises(TfmmError, match=f"expected one photo an id, received {TEST[0]} again"):
        fashion.convert(source, tmp_path / "out")


def test_an_empty_photo_counts_as_none(source: Path, tmp_path: Path):
    pq.write_table(
        pa.table({"id": [int(NO_PHOTO)], "jpeg": pa.array([b""])}), source / "images-2of2.parquet"
    )
    assert fashion.convert(source, tmp_path / "out")["train"]["products"] == 4


def test_a_missing_file_or_column_or_a_repeated_id_is_named(source: Path, tmp_path: Path):
    with pytest.raises(TfmmError, match=r"expected images-\*\.parquet, found none"):
        fashion.convert(tmp_path, tmp_path / "out")
    styles = source / "styles.csv"
    styles.write_text("id,productDisplayName\n1,a\n1,b\n")
    with pytest.raises(TfmmError, match=r"styles\.csv:3: expected an id of its own, received '1'"):
        fashion.convert(source, tmp_path / "out")
    styles.write_text("id,productDisplayName\n1\n")
    with pytest.raises(TfmmError, match=r"styles\.csv:2: expected 2 cells, received 1"):
        fashion.convert(source, tmp_path / "out")
    styles.unlink()
    with pytest.raises(TfmmError, match=r"styles\.csv: expected CSV"):
        fashion.convert(source, tmp_path / "out")


def test_the_command_prints_counts_and_exits_2_on_a_wrong_folder(source: Path, tmp_path: Path):
    run = click.testing.CliRunner().invoke
    done = run(fashion.main, [str(source), str(tmp_path / "out")])
    assert done.exit_code == 0
    assert "train: 4 products, 2 events" in done.output
    assert "photo-to-text: 2 products, 2 queries, 2 judgments" in done.output
    assert run(fashion.main, [str(tmp_path), str(tmp_path / "out")]).exit_code == 2


def test_the_recipe_follows_the_protocol():
    config = load_config(ROOT / "pipelines" / "fashion.toml")
    assert set(config.tower.query) == set(config.tower.product) == {"text", "image"}
    assert config.tower.shared_encoders
    assert config.catalogue.text == ("title",)
    assert config.split.test_fraction == config.split.validation_fraction == 0
    assert config.train.product_photo_share == 1
    assert config.train.symmetric
    assert {1, 10, 50} <= set(config.evaluate.ks)
