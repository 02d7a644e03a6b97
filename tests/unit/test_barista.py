"""pipelines.barista on a file of the same shape as the real one, with five orders."""

import zlib
from pathlib import Path

import click.testing
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import barista
from pipelines.demo_shop.voices import Utterance
from tfmm.config import load_config
from tfmm.errors import TfmmError

ROOT = Path(__file__).resolve().parents[2]
CLIPS = [f"{n}.ogg" for n in range(100)]
TEST = [clip for clip in CLIPS if zlib.crc32(clip.encode()) % 5 == 0][:2]
TRAIN = [clip for clip in CLIPS if zlib.crc32(clip.encode()) % 5 != 0][:3]


def order(file: str, drink: str, size: str | None = None, **more: str) -> dict:
    empty = dict.fromkeys((*barista.MENU, *barista.EXTRAS))
    sound = f"sound {file}".encode()
    return empty | {"file": file, "ogg": sound, "coffeeDrink": drink, "size": size} | more


ORDERS = [
    order(TRAIN[0], "mocha"),
    order(TRAIN[1], "iced coffee", "large", roast="dark roast", numberOfShots="double shot"),
    order(TEST[0], "mocha", sugarAmount="lots of sugar", milkAmount="soy milk"),
    order(TRAIN[2], "iced coffee", "large", roast="dark roast"),
    order(TEST[1], "latte", "small"),
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "speech"
    folder.mkdir()
    write(folder, ORDERS)
    return folder


def write(folder: Path, orders: list[dict]) -> None:
    pq.write_table(pa.Table.from_pylist(orders), folder / "barista_orders.parquet")


def rows(path: Path) -> list[dict]:
    return pq.read_table(path).to_pylist()


def test_the_menu_has_one_entry_for_each_drink_size_and_roast(source: Path, tmp_path: Path):
    barista.convert(source, tmp_path / "out", synthetic=0)
    assert rows(tmp_path / "out" / "products.parquet") == [
        {
            "product_id": "iced coffee/dark roast/large", "title": "large dark roast iced coffee",
            "category": "iced coffee", "size": "large", "roast": "dark roast",
        },
        {
            "product_id": "latte/-/small", "title": "small latte", "category": "latte",
            "size": "small", "roast": "",
        },
        {
            "product_id": "mocha/-/-", "title": "mocha", "category": "mocha", "size": "",
            "roast": "",
        },
    ]  # fmt: skip


def test_test_orders_are_asked_by_voice_and_typed_with_one_intent(source: Path, tmp_path: Path):
    barista.convert(source, tmp_path / "out", synthetic=0)
    queries = rows(tmp_path / "out" / "queries.parquet")
    assert [(q["query_id"], q["text"], q["audio"]) for q in queries] == [
        (f"voice {TEST[0]}", None, f"sound {TEST[0]}".encode()),
        (f"typed {TEST[0]}", "mocha soy milk lots of sugar", None),
        (f"voice {TEST[1]}", None, f"sound {TEST[1]}".encode()),
        (f"typed {TEST[1]}", "small latte", None),
    ]
    assert [q["intent"] for q in queries] == [TEST[0], TEST[0], TEST[1], TEST[1]]
    assert [q["slice"] for q in queries] == ["entry heard"] * 2 + ["entry unheard"] * 2
    judged = rows(tmp_path / "out" / "judgments.parquet")
    assert [(j["query_id"], j["product_id"], j["grade"]) for j in judged] == [
        (f"voice {TEST[0]}", "mocha/-/-", 1.0),
        (f"typed {TEST[0]}", "mocha/-/-", 1.0),
        (f"voice {TEST[1]}", "latte/-/small", 1.0),
        (f"typed {TEST[1]}", "latte/-/small", 1.0),
    ]


def test_training_hears_no_test_clip(source: Path, tmp_path: Path):
    barista.convert(source, tmp_path / "out", synthetic=0)
    events = rows(tmp_path / "out" / "events.parquet")
    sounds = [e["query_audio"] for e in events if e["query_audio"]]
    assert sounds == [f"sound {clip}".encode() for clip in TRAIN]
    assert [e["query_text"] for e in events if e["query_text"]] == [
        "mocha", "large dark roast iced coffee double shot", "large dark roast iced coffee",
    ]  # fmt: skip
    entries = ["mocha/-/-"] * 2 + ["iced coffee/dark roast/large"] * 4
    assert [e["product_id"] for e in events] == entries
    assert len({e["session_id"] for e in events}) == len(events) == 6


def test_synthetic_orders_are_clicks_on_their_entries(source: Path, tmp_path: Path):
    def events() -> list[dict]:
        barista.convert(source, tmp_path / "out", synthetic=2)
        return rows(tmp_path / "out" / "events.parquet")

    made_up = [e for e in events() if e["event_type"] == "click"]
    entries = ["iced coffee/dark roast/large", "latte/-/small", "mocha/-/-"]
    assert [e["product_id"] for e in made_up] == [entry for entry in entries for _ in range(2)]
    assert all(e["query_text"] is None for e in made_up)
    assert len({e["query_audio"] for e in made_up}) == 6
    assert [e for e in events() if e["event_type"] == "click"] == made_up


def test_synthetic_orders_say_the_entry_and_nothing_of_the_test(
    source: Path, tmp_path: Path, monkeypatch
):
    said: list[str] = []

    def record(utterances: list[Utterance], processes: int) -> list[bytes]:
        said.extend(one.text for one in utterances)
        return [b"sound"] * len(utterances)

    monkeypatch.setattr(barista.voices, "record", record)
    barista.convert(source, tmp_path / "out", synthetic=30)
    entries = [{"iced", "coffee", "dark", "roast", "large"}, {"latte", "small"}, {"mocha"}]
    for number, text in enumerate(said):
        assert entries[number // 30] <= set(text.split())
        # Milk and sugar are in an order of the test only.
        assert not {"soy", "sugar"} & set(text.split())
    assert any("double shot" in text for text in said)


def test_a_second_run_gives_the_same_bytes(source: Path, tmp_path: Path):
    def content() -> list[bytes]:
        barista.convert(source, tmp_path / "out", synthetic=0)
        return [path.read_bytes() for path in sorted((tmp_path / "out").iterdir())]

    assert len(content()) == 4
    assert content() == content()


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (order("x.ogg", "mocha") | {"ogg": None}, "x.ogg: expected a value in ogg, found none"),
        (order("x.ogg", "mocha") | {"ogg": b""}, "x.ogg: expected a value in ogg, found none"),
        (order("x.ogg", ""), "x.ogg: expected a value in coffeeDrink, found none"),
        (order("", "mocha"), "expected a file name of its own, received ''"),
        (order(TEST[0], "mocha"), f"expected a file name of its own, received '{TEST[0]}'"),
    ],
)
def test_a_bad_row_is_named_and_nothing_is_written(
    source: Path, tmp_path: Path, row: dict, sentence: str
):
    write(source, [*ORDERS, row])
    with pytest.raises(TfmmError) as caught:
        barista.convert(source, tmp_path / "out", synthetic=0)
    assert str(caught.value).endswith(f"barista_orders.parquet: {sentence}")
    assert not (tmp_path / "out").exists()


def test_a_missing_file_or_column_is_named(source: Path, tmp_path: Path):
    pq.write_table(pa.table({"file": ["a"]}), source / "barista_orders.parquet")
    with pytest.raises(TfmmError, match=r"barista_orders\.parquet: expected the column ogg"):
        barista.convert(source, tmp_path / "out", synthetic=0)
    with pytest.raises(TfmmError, match=r"barista_orders\.parquet: expected a Parquet file"):
        barista.convert(tmp_path, tmp_path / "out")


def test_the_command_prints_counts_and_exits_2_on_a_wrong_folder(source: Path, tmp_path: Path):
    run = click.testing.CliRunner().invoke
    done = run(barista.main, [str(source), str(tmp_path / "out"), "--synthetic", "0"])
    assert done.exit_code == 0
    assert "3 products, 6 events, 4 queries, 4 judgments" in done.output
    assert run(barista.main, [str(tmp_path), str(tmp_path / "out")]).exit_code == 2


def test_the_recipe_follows_the_protocol():
    config = load_config(ROOT / "pipelines" / "barista.toml")
    assert config.tower.query == ("text", "audio")
    assert config.tower.product == ("text",)
    assert set(config.catalogue.text) <= set(barista.PRODUCT.names)
    assert config.split.test_fraction == config.split.validation_fraction == 0
    assert {1, 5} <= set(config.evaluate.ks)
