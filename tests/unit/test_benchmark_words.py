"""The benchmark of typed queries: its parts, and from end to end on a small shop."""

import argparse
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from benchmarks.shop import SPECIAL, WORDS, add_shop_arguments, publish
from benchmarks.words.__main__ import (
    calls,
    different_texts,
    latencies_ms,
    lines,
    tokeniser,
    word_pieces,
)
from tfmm import artifacts, build
from tfmm.config import config_from_dict
from tfmm.errors import TfmmError

ROOT = Path(__file__).resolve().parents[2]
TEXTS = ["word1 word22", "word3", "Word4, wurd5 红色"]


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    parser = argparse.ArgumentParser()
    add_shop_arguments(parser, products=60)
    args = parser.parse_args(["--dim=8", "--clusters=5"])
    return publish(args, tmp_path_factory.mktemp("models"), "exact")


def test_ratios_are_of_the_medians_of_a_repetition():
    measured = {
        "tokenising": [[1.0, 2.0, 3.0], [4.0] * 3, [1.0] * 3],
        "search_text": [[6.0] * 3, [8.0] * 3, [2.0, 4.0, 11.0]],
    }
    assert lines(measured)[2:] == [
        "| tokenising | 9 | 2.000 | 2.800 | 1.00 (1.00–1.00) |",
        "| search_text | 9 | 6.000 | 8.000 | 3.00 (2.00–4.00) |",
    ]


def test_texts_take_turns_from_the_first_on():
    asked: list[str] = []
    took = latencies_ms(asked.append, TEXTS, 0.001)
    assert len(took) == len(asked) > len(TEXTS)
    assert asked == list(itertools.islice(itertools.cycle(TEXTS), len(asked)))
    assert min(took) > 0


@pytest.mark.parametrize("name", ["queries.csv", "queries.jsonl"])
def test_only_different_texts_are_asked(tmp_path: Path, name: str):
    rows = ["red", "blue", "", "red"]
    written = [f'{{"text": "{row}", "query_id": "a"}}' for row in rows]
    if name.endswith("csv"):
        written = ["query_id,text", *(f"a,{row}" for row in rows)]
    (tmp_path / name).write_text("\n".join(written))
    assert different_texts(tmp_path / name) == ["red", "blue"]


def test_one_text_alone_is_refused(tmp_path: Path):
    (tmp_path / "queries.csv").write_text("query_id,text\na,red\nb,red\n")
    expected = "queries.csv: expected at least 2 different texts in the column text, found 1"
    with pytest.raises(TfmmError, match=expected):
        different_texts(tmp_path / "queries.csv")


def test_tokenising_alone_gives_what_the_tower_reads(version: Path):
    config = config_from_dict(artifacts.read_manifest(version)["config"], where="")
    preprocessor = build.make_preprocessor(config, [*SPECIAL, *WORDS], ["p0"])
    wanted = preprocessor.query({"text": tf.constant(TEXTS)})
    found = tokeniser(config.text, word_pieces(version))(text=TEXTS)
    assert found["ids"].max() > len(SPECIAL)
    for name in ("ids", "ngrams"):
        np.testing.assert_array_equal(found[name], wanted[f"text/{name}"])


def test_signatures_search_and_what_stands_beside_them_does_not(version: Path):
    answers = {name: set(call(TEXTS[0])) for name, call in calls(version).items()}
    hits = {"product_id", "score", "title", "price"}
    assert answers == {
        "tokenising": {"ids", "ngrams", "present"},
        "tokenising, word pieces alone": {"ids", "present"},
        "search_text": hits,
        "serving_default": hits,
    }


def test_a_model_of_somebody_else_is_refused(tmp_path: Path):
    tf.saved_model.save(tf.Module(), str(tmp_path))
    with pytest.raises(TfmmError, match="expected a model published by tfmm, found no recipe"):
        calls(tmp_path)
    with pytest.raises(TfmmError, match="expected one tokenizer of word pieces, found 0"):
        word_pieces(tmp_path)


def test_the_benchmark_prints_a_line_for_each_way(version: Path, tmp_path: Path):
    (tmp_path / "queries.csv").write_text("\n".join(["text", *(f'"{text}"' for text in TEXTS)]))
    given = [str(version.parent), "--queries", str(tmp_path / "queries.csv")]
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.words", *given, "--seconds=0.05", "--repeats=2"],
        capture_output=True, text=True, cwd=ROOT, timeout=300, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("3 different queries, one thread; ")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in run.stdout.splitlines()]
    found = {row[0]: row[1:] for row in rows[4:]}
    alone = ["tokenising", "tokenising, word pieces alone"]
    assert list(found) == [*alone, "search_text", "serving_default"]
    assert found["tokenising"][-1] == "1.00 (1.00–1.00)"
    for count, half, tenth, ratio in found.values():
        assert int(count.replace(",", "")) >= 4
        assert 0 < float(half) <= float(tenth)
        assert float(ratio.split()[0]) > 0
    assert [line.startswith("benchmarks.words: ") for line in run.stderr.splitlines()] == [True] * 2
