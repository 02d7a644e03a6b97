"""Whether a server gives the answers that a batch has written."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet
import tensorflow as tf

from tfmm.errors import RequirementMissedError
from tfmm.scoring.job import Job
from tfmm.scoring.media import MediaLoader
from tfmm.scoring.rows import Checker, Row, inputs_of
from tfmm.scoring.sources import Block
from tfmm.scoring.takes import SIGNATURE, Takes

TOLERANCE = 1e-5
Pair = tuple[str, float]


class Server(Protocol):
    """What is asked of `tfmm.Client`."""

    address: str

    def predict(self, signature: str, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """The outputs [B, K] of a signature."""


def verify(
    job: Job, blocks: Sequence[Block], counts: Sequence[int], *, server: Server, rows: int
) -> int:
    """Asks a server for rows drawn at random and compares its answers with those written.

    Scores are to be equal within 1e-5, products too but for ties.

    Args:
      job: A job whose blocks are all finished.
      blocks: Its blocks.
      counts: How many rows the file of each has.
      server: The server.
      rows: How many rows to draw; all if there are not so many. It is always the same draw.

    Returns:
      How many rows were compared.

    Raises:
      RequirementMissedError: An answer differs.
      TfmmError: The server does not answer.
    """
    takes = Takes.of(job.saved_model, job.kind, job.fields)
    checker = Checker(takes, job.asked)
    media = MediaLoader(job.media, takes.config.prepare)
    compared = 0
    for block, places in _drawn(blocks, counts, rows).items():
        answers = {
            tuple(one[key.name] for key in takes.keys): one["hits"]
            for one in _read(job, block, places, takes)
        }
        for row in job.source.rows(block, checker):
            if not isinstance(row, Row) or row.keys not in answers:
                continue
            media.load({0: row})
            written = [(hit["product_id"], hit["score"]) for hit in answers.pop(row.keys)]
            served = _served(server, row, takes)
            compared += 1
            if problem := difference(written, served):
                named = ", ".join(str(key) for key in row.keys if key not in (None, ""))
                raise RequirementMissedError(
                    f"--verify: {job.part(block).name}, row {named}: {problem} of {server.address}"
                )
    return compared


def difference(written: Sequence[Pair], served: Sequence[Pair]) -> str:
    """In what two rankings differ beyond rounding; "" if they do not.

    Products whose scores are within the tolerance of each other may stand in any order, and at the
    end of the list any of them may be missing.
    """
    if len(written) != len(served):
        return f"expected the {len(served)} hits, found {len(written)}"
    for rank, ((product, score), (_, other)) in enumerate(zip(written, served, strict=True), 1):
        if abs(score - other) > TOLERANCE:
            return f"expected at rank {rank} the score {other:.7f}, found {score:.7f} of {product}"
    known, last = dict(served), served[-1][1] if served else 0.0
    for product, score in written:
        if abs(score - known.get(product, last)) > TOLERANCE:
            return f"expected {product} with the score or at the place {known.get(product)}"
    return ""


def _drawn(blocks: Sequence[Block], counts: Sequence[int], rows: int) -> dict[Block, list[int]]:
    """Places of rows in the files of blocks, rising."""
    drawn = sorted(random.Random(0).sample(range(sum(counts)), min(rows, sum(counts))))
    places: defaultdict[Block, list[int]] = defaultdict(list)
    block, first = 0, 0
    for place in drawn:
        while place >= first + counts[block]:
            first, block = first + counts[block], block + 1
        places[blocks[block]].append(place - first)
    return dict(places)


def _served(server: Server, row: Row, takes: Takes) -> list[Pair]:
    answer = server.predict(SIGNATURE[takes.kind], [inputs_of(row, takes)])
    names = [_text(one) for one in answer["product_id"][0]]
    pairs = zip(names, answer["score"][0].tolist(), strict=True)
    return [pair for pair in pairs if pair[0] not in ("", *row.exclude)][: row.k]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _read(job: Job, block: Block, places: Sequence[int], takes: Takes) -> list[dict[str, Any]]:
    """Some rows of a block's file."""
    path = job.part(block)
    match job.form:
        case "parquet":
            return list(pa.parquet.read_table(path).take(pa.array(places)).to_pylist())
        case "jsonl":
            with path.open(encoding="utf-8") as lines:
                wanted = set(places)
                rows = [json.loads(line) for n, line in enumerate(lines) if n in wanted]
            return [dict.fromkeys(takes.schema.names) | row for row in rows]
        case "tfrecord":
            return _examples(path, set(places), takes)


def _examples(path: Path, places: set[int], takes: Takes) -> list[dict[str, Any]]:
    rows = []
    records = tf.data.TFRecordDataset(str(path), compression_type="GZIP").as_numpy_iterator()
    for number, record in enumerate(records):
        if number in places:
            held = tf.train.Example.FromString(record).features.feature
            ids = [_text(one) for one in held["hits/product_id"].bytes_list.value]
            pairs = zip(ids, held["hits/score"].float_list.value, strict=True)
            hits = [{"product_id": one, "score": score} for one, score in pairs]
            rows.append({key.name: _key(held, key) for key in takes.keys} | {"hits": hits})
    return rows


def _key(features: Any, key: pa.Field) -> Any:
    if key.name not in features:
        return None
    if pa.types.is_integer(key.type):
        return features[key.name].int64_list.value[0]
    return _text(features[key.name].bytes_list.value[0])
