"""pipelines.chinese on a file of the same shape as the real one, with four rows."""

from pathlib import Path

import click.testing
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import chinese
from tfmm.config import load_config
from tfmm.errors import TfmmError

ROOT = Path(__file__).resolve().parents[2]
LAMP = ("led财神灯新款", "B-A I-A I-A B-B I-B I-B O O")
SHIRT = ("男士衬衫,短袖 2017", "O O B-A I-A O O O O O O O O")
ONE = ("《帽》", "O B-A O")
ROWS = [LAMP, SHIRT, LAMP, ONE]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "chinese"
    folder.mkdir()
    write(folder, ROWS)
    return folder


def write(folder: Path, titles: list[tuple[str, str]]) -> None:
    lines = [f'train,"{title}",{tags}' for title, tags in titles]
    text = "\n".join(["split,title,tags", *lines, ""])
    (folder / "taobao_titles_ner.csv").write_text(text, encoding="utf-8")


def rows(path: Path) -> list[dict]:
    return pq.read_table(path).to_pylist()


def is_part_of(part: list[str], whole: list[str]) -> bool:
    rest = iter(whole)
    return all(word in rest for word in part)


@pytest.mark.parametrize(
    ("title", "tags", "words"),
    [
        (*LAMP, ["led", "财神灯", "新款"]),
        (*SHIRT, ["男士", "衬衫", "短袖", "2017"]),
        (*ONE, ["帽"]),
        ("加厚水泥地", "O O O O O", ["加厚", "水泥", "地"]),
        ("ad8174an,15.6寸", "O " * 13 + "O", ["ad8174an", "15.6", "寸"]),
        ("甲乙丙丁", "B-A I-A B-A I-A", ["甲乙", "丙丁"]),
        ("……", "O O", []),
    ],
)
def test_words_are_entities_pairs_of_characters_and_latin_runs(
    title: str, tags: str, words: list[str]
):
    assert chinese.words_of(title, tags.split()[: len(title)]) == words


def test_every_row_is_a_product_and_every_distinct_title_a_query(source: Path, tmp_path: Path):
    counts = chinese.convert(source, tmp_path / "out")
    assert (counts["products"], counts["queries"], counts["judgments"]) == (4, 3, 4)
    products = rows(tmp_path / "out" / "products.parquet")
    assert [p["title"] for p in products] == [title for title, _ in ROWS]
    judged = rows(tmp_path / "out" / "judgments.parquet")
    assert [(j["query_id"], j["product_id"]) for j in judged] == [
        ("T00001", "T00001"), ("T00001", "T00003"), ("T00002", "T00002"), ("T00004", "T00004"),
    ]  # fmt: skip


def test_half_of_the_words_are_dropped_and_the_others_keep_their_order(
    source: Path, tmp_path: Path
):
    chinese.convert(source, tmp_path / "out")
    lamp, shirt, one = (q["text"] for q in rows(tmp_path / "out" / "queries.parquet"))
    assert len(lamp.split()) == 2  # one of three
    assert is_part_of(lamp.split(), ["led", "财神灯", "新款"])
    assert len(shirt.split()) == 2
    assert is_part_of(shirt.split(), ["男士", "衬衫", "短袖", "2017"])
    assert one == "帽"


@given(st.lists(st.text("甲乙丙丁ab1", min_size=1, max_size=3), min_size=1, max_size=12))
def test_training_queries_differ_from_one_another_and_from_the_test(words: list[str]):
    title = "".join(words)
    asked = chinese.known_item_query(title, words)
    assert asked == chinese.known_item_query(title, words)
    assert len(asked.split()) == len(words) - len(words) // 2
    trained = list(chinese.training_queries(title, words, variants=6, tested={asked}))
    assert len(trained) == len({asked, *trained}) - 1 <= 6
    assert all(query and is_part_of(query.split(), words) for query in trained)


def test_a_title_without_words_is_asked_for_as_it_is(source: Path, tmp_path: Path):
    write(source, [("……", "O O")])
    chinese.convert(source, tmp_path / "out")
    assert [q["text"] for q in rows(tmp_path / "out" / "queries.parquet")] == ["……"]


def test_copies_of_a_title_share_their_training_queries(source: Path, tmp_path: Path):
    chinese.convert(source, tmp_path / "out", variants=20)
    asked: dict[str, set[str]] = {}
    for event in rows(tmp_path / "out" / "events.parquet"):
        asked.setdefault(event["product_id"], set()).add(event["query_text"])
    assert asked["T00001"] == asked["T00003"]
    assert len(asked["T00002"]) > 3
    test = {q["query_id"]: q["text"] for q in rows(tmp_path / "out" / "queries.parquet")}
    assert not set(test.values()) & set.union(*asked.values())


def test_no_query_of_the_test_is_trained_on_with_another_title(tmp_path: Path):
    cap, hat = ("转卖帽子", "O O O O"), ("转卖手套", "O O O O")
    folder = tmp_path / "chinese"
    folder.mkdir()
    write(folder, [cap, hat])
    chinese.convert(folder, tmp_path / "out", variants=40)
    test = {q["text"] for q in rows(tmp_path / "out" / "queries.parquet")}
    trained = {e["query_text"] for e in rows(tmp_path / "out" / "events.parquet")}
    assert not test & trained
    assert trained >= {"帽子", "手套", "转卖"} - test


def test_a_second_run_gives_the_same_bytes(source: Path, tmp_path: Path):
    def content() -> list[bytes]:
        chinese.convert(source, tmp_path / "out")
        return [path.read_bytes() for path in sorted((tmp_path / "out").iterdir())]

    assert len(content()) == 4
    assert content() == content()


def test_a_malformed_row_is_named(source: Path, tmp_path: Path):
    write(source, [LAMP, ("帽子", "O O O")])
    with pytest.raises(TfmmError, match=r"taobao_titles_ner\.csv:3: expected 2 tags, received 3"):
        chinese.convert(source, tmp_path / "out")
    write(source, [(" ", "O")])
    with pytest.raises(TfmmError, match=r"taobao_titles_ner\.csv:2: expected a title"):
        chinese.convert(source, tmp_path / "out")
    (source / "taobao_titles_ner.csv").write_text("title\n帽\n", encoding="utf-8")
    with pytest.raises(TfmmError, match="expected the column tags"):
        chinese.convert(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_prints_counts_and_exits_2_on_a_wrong_folder(source: Path, tmp_path: Path):
    run = click.testing.CliRunner().invoke
    done = run(chinese.main, [str(source), str(tmp_path / "out"), "--variants", "1"])
    assert done.exit_code == 0
    assert "4 products, " in done.output
    assert run(chinese.main, [str(tmp_path), str(tmp_path / "out")]).exit_code == 2


def test_the_recipe_follows_the_protocol():
    config = load_config(ROOT / "pipelines" / "chinese.toml")
    assert config.catalogue.text == ("title",)
    assert config.tower.query == config.tower.product == ("text",)
    assert config.split.test_fraction == config.split.validation_fraction == 0
    assert 10 in config.evaluate.ks
