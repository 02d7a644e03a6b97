from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from pipelines import demo
from pipelines.demo_shop.asking import draw_taste, mix
from pipelines.demo_shop.catalogue import Catalogue, make_catalogue
from pipelines.demo_shop.judgments import Ask, grade_ask, grade_photo, grade_taste
from pipelines.demo_shop.queries import Query, make_queries
from pipelines.demo_shop.words import KINDS


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return make_catalogue(11, 400)


@pytest.fixture(scope="module")
def queries(catalogue: Catalogue) -> list[Query]:
    return make_queries(catalogue, intents=8, seed=11, voices=True)


def _oracle(catalogue: Catalogue, product: int, ask: Ask) -> int:
    """The rule of judgments.py, in words of one product."""
    kind = int(catalogue.kind[product])
    hits = [catalogue.attributes[name][product] == code for name, code in ask.attributes.items()]
    if kind == ask.kind:
        return 3 if all(hits) else 2 if any(hits) else 1
    return int(KINDS[kind].family == KINDS[ask.kind].family and all(hits))


def test_words_are_graded_by_kind_and_attributes(catalogue: Catalogue) -> None:
    for product in range(0, 60, 3):
        ask = Ask(
            int(catalogue.kind[product]),
            {name: int(catalogue.attributes[name][product]) for name in ("colour", "brand")},
        )
        expected = [_oracle(catalogue, other, ask) for other in range(len(catalogue))]
        np.testing.assert_array_equal(grade_ask(catalogue, ask), expected)
        assert expected[product] == 3


def test_a_photo_is_graded_by_the_product_and_its_like(catalogue: Catalogue) -> None:
    for product in range(0, 60, 3):
        ask = Ask(
            int(catalogue.kind[product]),
            {name: int(catalogue.attributes[name][product]) for name in ("colour", "pattern")},
        )
        expected = [_oracle(catalogue, other, ask) for other in range(len(catalogue))]
        expected[product] = 4
        np.testing.assert_array_equal(grade_photo(catalogue, product), expected)


def test_a_past_is_graded_by_taste_and_is_itself_no_answer(catalogue: Catalogue) -> None:
    taste = draw_taste(np.random.default_rng(2))
    past = [int(i) for i in np.flatnonzero(np.isin(catalogue.kind, taste.kinds))[:5]]
    grades = grade_taste(catalogue, taste, past)
    liked = {"colour": taste.colours, "pattern": taste.patterns, "brand": taste.brands}
    for product in range(len(catalogue)):
        suits = sum(catalogue.attributes[n][product] in codes for n, codes in liked.items())
        favourite = catalogue.kind[product] in taste.kinds
        expected = (1, 2, 3, 3)[suits] if favourite else int(suits == 3)
        assert grades[product] == (0 if product in past else expected)


def test_a_mixture_asks_for_the_photo_but_with_what_the_words_say(catalogue: Catalogue) -> None:
    rng = np.random.default_rng(4)
    for wanted in range(0, 200, 5):
        mixture = mix(catalogue, wanted, rng)
        assert mixture.photographed != wanted
        assert mixture.ask.kind == catalogue.kind[mixture.photographed]
        assert mixture.ask.attributes[mixture.attribute] == mixture.code
        assert mixture.code == catalogue.attributes[mixture.attribute][wanted]
        for name in {"colour", "pattern"} - {mixture.attribute}:
            shown = catalogue.attributes[name][mixture.photographed]
            assert mixture.ask.attributes[name] == shown


def test_queries_of_one_intent_ask_for_the_same_thing(queries: list[Query]) -> None:
    by_intent: dict[str, list[Query]] = {}
    for query in queries:
        by_intent.setdefault(query.intent, []).append(query)
    for intent, same in by_intent.items():
        asked = [query for query in same if query.slice != "photo"]
        for query in asked:
            np.testing.assert_array_equal(query.grades, asked[0].grades)
        if intent.startswith("say"):
            typed = {query.text for query in same if query.slice == "words of a voice"}
            assert {q.spoken.text for q in same if q.spoken} == typed
        if intent.startswith("mix"):
            (both,) = (query for query in same if query.slice == "photo and words")
            assert {"words of a mixture", "photo of a mixture"} <= {q.slice for q in same}
            assert {query.photo for query in same if query.photo} == {both.photo}


def test_every_slice_is_there_and_every_intent_has_an_answer(queries: list[Query]) -> None:
    assert {query.slice for query in queries} == {
        "plain", "synonym", "misspelling", "photo", "heard voice", "unheard voice",
        "photo and words", "photo and voice", "words of a mixture", "photo of a mixture",
        "voice of a mixture", "history", "words of a voice",
    }  # fmt: skip
    assert all(query.grades.max() >= 1 for query in queries)
    for query in queries:
        if query.slice in ("plain", "photo"):
            assert query.grades.max() == (4 if query.photo else 3)


def test_judgments_are_written_completely(tmp_path: Path) -> None:
    size = ["--products", "90", "--shoppers", "5", "--sessions", "10", "--queries", "3"]
    result = CliRunner().invoke(demo.main, [str(tmp_path / "shop"), *size, "--no-voices"])
    assert result.exit_code == 0, result.output
    catalogue = make_catalogue(7, 90)
    queries = make_queries(catalogue, intents=3, seed=7, voices=False)
    expected = {
        (f"{query.intent}-{query.name}", catalogue.product_id(product)): float(grade)
        for query in queries
        for product, grade in enumerate(query.grades)
        if grade > 0
    }
    rows = pq.read_table(tmp_path / "shop" / "judgments.parquet").to_pylist()
    assert {(r["query_id"], r["product_id"]): r["grade"] for r in rows} == expected
    assert len(rows) == len(expected)
    ids = pq.read_table(tmp_path / "shop" / "queries.parquet")["query_id"].to_pylist()
    assert len(ids) == len(set(ids)) == len(queries)


def test_missing_voices_are_said_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo.voices, "is_available", lambda: False)
    result = CliRunner().invoke(demo.main, [str(tmp_path / "shop")])
    assert result.exit_code == 1
    assert "extra `demo`" in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    result = CliRunner().invoke(demo.main, [str(tmp_path), "--no-voices"])
    assert result.exit_code == 1
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
