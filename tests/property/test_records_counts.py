"""Whatever mixture of good and bad rows comes: read = written + rejected, good rows survive."""

from __future__ import annotations

import json
import math
import struct
import tempfile
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import strategies as st

from tfmm.config import config_from_dict
from tfmm.records.schema import TABLES
from tfmm.records.tfrecord import PreparedData, decode_record, encode_record
from tfmm.workflows.prepare import prepare

CONFIG = config_from_dict({"prepare": {"max_reject_fraction": 1.0, "shards": 2}})

# NUL becomes a space and half a surrogate pair is no text, so neither is in a good value.
GOOD_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
FLOAT32 = st.floats(width=32, min_value=0, allow_nan=False, allow_infinity=False)

good_products = st.fixed_dictionaries(
    {},
    optional={
        "title": GOOD_TEXT,
        "description": GOOD_TEXT,
        "brand": GOOD_TEXT,
        "price": FLOAT32,
        "in_stock": st.booleans(),
        "reviews": st.lists(GOOD_TEXT, min_size=1, max_size=3),
    },
)
bad_lines = st.sampled_from(
    [
        "{",
        "[]",
        "null",
        '"p"',
        "{}",
        '{"product_id": ""}',
        '{"product_id": " "}',
        '{"product_id": "a\\u0000"}',
        '{"product_id": true}',
        '{"product_id": "x", "price": "abc"}',
        '{"product_id": "x", "price": -0.5}',
        '{"product_id": "x", "price": Infinity}',
        '{"product_id": "x", "in_stock": "maybe"}',
        '{"product_id": "x", "title": "\\ud83d"}',
        '{"product_id": "x", "title": {"a": 1}}',
        '{"product_id": "x", "image": "gone.jpg"}',
        '{"product_id": "x", "image": {"b64": "AAAA"}}',
        '{"product_id": "first"}',
    ]
)


@hypothesis.given(st.lists(st.one_of(good_products, bad_lines), max_size=12))
@hypothesis.settings(max_examples=40)
def test_read_is_written_plus_rejected_and_good_rows_survive(
    rows: list[dict[str, Any] | str],
) -> None:
    good = [{"product_id": "first"}]
    lines = [json.dumps(good[0])]
    for i, row in enumerate(rows):
        if isinstance(row, dict):
            good.append({"product_id": f"p{i}"} | row)
        lines.append(row if isinstance(row, str) else json.dumps(good[-1]))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "shop").mkdir()
        (folder / "shop" / "products.jsonl").write_text("\n".join(lines))
        manifest = prepare(folder / "shop", folder / "out", config=CONFIG, progress=False)
        data = PreparedData(folder / "out")
        written = list(data.rows("products"))
        rejected = (folder / "out" / "rejects.jsonl").read_text().splitlines()
    part = manifest["tables"]["products"]
    assert part["read"] == len(lines) == part["written"] + part["rejected"]
    assert (part["written"], part["rejected"]) == (len(good), len(rejected))
    assert [json.loads(line)["row"] for line in rejected] == [
        number for number, row in enumerate(rows, start=2) if isinstance(row, str)
    ]
    for row, record in zip(good, written, strict=True):
        for column, value in row.items():
            assert record[column] == value
        assert "price" in row or math.isnan(record["price"])
        assert record["in_stock"] == row.get("in_stock", True)


@hypothesis.given(
    st.fixed_dictionaries(
        {},
        optional={
            name: {
                "text": st.text(st.characters(exclude_categories=["Cs"])),
                "texts": st.lists(st.text(st.characters(exclude_categories=["Cs"]))),
                "media": st.binary(),
                "medias": st.lists(st.binary()),
                "float": st.floats(width=32, allow_nan=False),
                "int": st.integers(-(2**63), 2**63 - 1),
            }[stored]
            for table in TABLES.values()
            for name, stored in table.features.items()
        },
    )
)
def test_every_record_survives_serialisation(record: dict[str, Any]) -> None:
    schema = {name: kind for table in TABLES.values() for name, kind in table.features.items()}
    record = {name: value for name, value in record.items() if schema[name]}
    found = decode_record(encode_record(record, schema), schema)
    for name, value in record.items():
        assert found[name] == value
        if isinstance(value, float):
            assert struct.pack("<f", found[name]) == struct.pack("<f", value)
