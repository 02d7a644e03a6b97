"""Milliseconds of a typed query, one at a time: `python -m benchmarks.words --help`.

A published model is loaded into this process, in which TensorFlow has one thread for each of its
pools. Its signatures are asked for one text a call, another one each time: `search_text`, and
`serving_default` with all other inputs at their defaults. Beside them stands the tokenising alone:
tfmm's own function of a text, with the word pieces that the model holds, to the ids that the tower
reads, and again without the hashed n-grams. All are called in the same way, in turn in each
repetition, with the same texts in the same order. Ratios are of the medians of one repetition.
"""

from __future__ import annotations

import tfmm  # isort: skip # noqa: F401 - selects legacy Keras before TensorFlow is imported

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median, quantiles

import tensorflow as tf
import tensorflow_text as tf_text
from tensorflow.core.protobuf import saved_model_pb2

from benchmarks.machine import machine
from tfmm.artifacts import InputSpec, Signature, latest_version, load_model, read_manifest
from tfmm.config import TextConfig, config_from_dict
from tfmm.errors import TfmmError
from tfmm.features.text import RESERVED, TextFeatures
from tfmm.records.sources import find_files
from tfmm.records.tables import read_rows

SIGNATURES = ("search_text", "serving_default")
TOKENISING, PIECES = "tokenising", "tokenising, word pieces alone"
LEAST_TEXTS, MOST_TEXTS = 2, 10_000
WARM_UP = 20

Call = Callable[[str], object]
Latencies = list[float]


class PublishedText(TextFeatures):
    """The text features of a model, as its own tokenizer gives them.

    Args:
      config: The text section of its recipe.
      pieces: Its compiled word pieces, uint8 [any].
    """

    def __init__(self, config: TextConfig, pieces: tf.Tensor) -> None:
        super().__init__(config, [*RESERVED, "any"])  # of which the line below keeps nothing
        self._tokenizer = tf_text.FastWordpieceTokenizer(
            model_buffer=pieces, token_out_type=tf.int32
        )


def word_pieces(version: Path) -> tf.Tensor:
    """The compiled word pieces that a version's tokenizer reads, uint8 [any].

    Raises:
      TfmmError: The model holds none, as with a preprocessing module of its own.
    """
    content = saved_model_pb2.SavedModel()
    content.ParseFromString((version / "saved_model.pb").read_bytes())
    bytes_in_it = [
        tf.make_ndarray(node.attr["value"].tensor)
        for node in content.meta_graphs[0].graph_def.node
        if node.op == "Const" and node.attr["dtype"].type == tf.uint8.as_datatype_enum
    ]
    if len(bytes_in_it) != 1:
        raise TfmmError(
            f"{version}: expected one tokenizer of word pieces, found {len(bytes_in_it)}"
        )
    return tf.constant(bytes_in_it[0])


def tokeniser(config: TextConfig, pieces: tf.Tensor) -> Signature:
    """The tokenising of texts [B] alone, to be called as a loaded signature is."""
    features = PublishedText(config, pieces)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None], tf.string, "text")])
    def tokens(text: tf.Tensor) -> dict[str, tf.Tensor]:
        return features.query(text)

    return Signature(
        TOKENISING, tokens.get_concrete_function(), {"text": InputSpec(tf.string, (None,), None)}
    )


def _asking(signature: Signature) -> Call:
    return lambda text: signature(text=[text])


def calls(path: Path) -> dict[str, Call]:
    """What is measured of a model, by its name in the table.

    Raises:
      TfmmError: It is no model that tfmm published, or answers no words.
    """
    version = latest_version(path)
    manifest = read_manifest(version)
    if "config" not in manifest:
        raise TfmmError(f"{version}: expected a model published by tfmm, found no recipe in it")
    config = config_from_dict(manifest["config"], where=str(version)).text
    pieces = word_pieces(version)
    model = load_model(version)
    missing = [name for name in SIGNATURES if name not in model.signatures]
    if missing:
        raise TfmmError(f"{version}: expected a signature {missing[0]}, found none")
    made = {TOKENISING: tokeniser(config, pieces)}
    if config.ngram_buckets:
        made[PIECES] = tokeniser(replace(config, ngram_buckets=0), pieces)
    made |= {name: model.signatures[name] for name in SIGNATURES}
    return {name: _asking(one) for name, one in made.items()}


def _words(path: Path) -> Iterator[str]:
    for file in find_files(path, "queries"):
        for row in read_rows(file, columns=["text"]):
            text = (row.values or {}).get("text")
            if isinstance(text, str) and text.strip():
                yield text


def different_texts(path: Path) -> list[str]:
    """Texts of a table of queries, none twice.

    Raises:
      TfmmError: There are too few to ask for another one each time.
    """
    texts: dict[str, None] = {}
    for text in _words(path):
        texts[text] = None
        if len(texts) == MOST_TEXTS:
            break
    if len(texts) < LEAST_TEXTS:
        raise TfmmError(
            f"{path}: expected at least {LEAST_TEXTS} different texts in the column text,"
            f" found {len(texts)}"
        )
    return list(texts)


def latencies_ms(call: Call, texts: list[str], seconds: float) -> Latencies:
    """Of calls that follow one another for so long, twice at least."""
    took: Latencies = []
    turns, until = itertools.cycle(texts), time.perf_counter() + seconds
    while len(took) < 2 or time.perf_counter() < until:
        text = next(turns)
        start = time.perf_counter()
        call(text)
        took.append(1e3 * (time.perf_counter() - start))
    return took


def lines(measured: dict[str, list[Latencies]]) -> list[str]:
    """The table of what was measured in each repetition."""
    rows = ["| what | calls | p50 ms | p90 ms | x tokenising |", "|---|---:|---:|---:|---:|"]
    halves = {name: [median(took) for took in turns] for name, turns in measured.items()}
    for name, turns in measured.items():
        tenths = median(quantiles(took, n=10, method="inclusive")[-1] for took in turns)
        ratios = [one / alone for one, alone in zip(halves[name], halves[TOKENISING], strict=True)]
        count = sum(len(took) for took in turns)
        ratio = f"{median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
        cells = [name, f"{count:,}", f"{median(halves[name]):.3f}", f"{tenths:.3f}", ratio]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="benchmarks.words", description=__doc__)
    parser.add_argument("model", type=Path, metavar="SAVED_MODEL")
    parser.add_argument(
        "--queries", type=Path, required=True, metavar="FILE",
        help="A table with a column text: Parquet, CSV or JSONL, or a dataset's folder.",
    )  # fmt: skip
    parser.add_argument("--seconds", type=float, default=2.0, help="Of each measurement.")
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> int:
    """Measures and prints a table; returns the exit status."""
    args = arguments(given)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    try:
        texts = different_texts(args.queries)
        asked = calls(args.model)
    except TfmmError as error:
        print(f"benchmarks.words: {error}", file=sys.stderr)
        return 2
    for call in asked.values():
        for text in itertools.islice(itertools.cycle(texts), WARM_UP):
            call(text)
    measured: dict[str, list[Latencies]] = {name: [] for name in asked}
    for number in range(args.repeats):
        print(f"benchmarks.words: repetition {number + 1}", file=sys.stderr)
        for name, call in asked.items():
            measured[name].append(latencies_ms(call, texts, args.seconds))
    print(f"{len(texts):,} different queries, one thread; {machine()}\n")
    print("\n".join(lines(measured)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
