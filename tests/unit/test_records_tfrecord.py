"""Records in TFRecord shards: what is written is what is read, in order, by both readers."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfmm.errors import TfmmError
from tfmm.records.schema import TABLES
from tfmm.records.tfrecord import (
    PreparedData,
    ShardWriter,
    decode_record,
    encode_record,
    shard_of,
)

FULL = {
    "product_id": "p1", "title": "red 👠", "description": "红色高跟鞋", "category": "shoes",
    "brand": "b", "price": 9.5, "in_stock": 0, "images": [b"\xff\xd8", b"\x89PNG"],
    "audio": [b"RIFF"], "reviews": ["good", "bad"], "video": b"\0\1",
}  # fmt: skip
SCHEMA = TABLES["products"].features


def float32(value: float) -> float:
    return struct.unpack("<f", struct.pack("<f", value))[0]


@pytest.fixture
def prepared(tmp_path: Path) -> PreparedData:
    records = [FULL | {"product_id": f"p{i}"} for i in range(9)] + [{"product_id": "p9"}]
    with ShardWriter(tmp_path, "products", shards=3) as writer:
        for i, record in enumerate(records):
            writer.write(i * 3 // 10, encode_record(record, SCHEMA))
    absent = {"read": 0, "written": 0, "rejected": 0, "files": []}
    products = {"read": 10, "written": 10, "rejected": 0, "files": writer.names}
    manifest = {
        "format": 1,
        "tables": dict.fromkeys(TABLES, absent) | {"products": products},
        "schema": {name: table.features for name, table in TABLES.items()},
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest, default=dict))
    return PreparedData(tmp_path)


def test_a_full_record_survives_the_round_trip() -> None:
    assert decode_record(encode_record(FULL, SCHEMA), SCHEMA) == FULL


def test_numbers_are_kept_as_float32_and_int64() -> None:
    schema = {"a": "float", "b": "int"}
    record = decode_record(encode_record({"a": 0.1, "b": 2**62}, schema), schema)
    assert record == {"a": float32(0.1), "b": 2**62}


def test_what_a_record_lacks_has_its_default() -> None:
    product = decode_record(encode_record({"product_id": "p"}, SCHEMA), SCHEMA)
    price = product.pop("price")
    assert math.isnan(price)
    assert product == {
        "product_id": "p", "title": "", "description": "", "category": "", "brand": "",
        "in_stock": 1, "images": [], "audio": [], "reviews": [], "video": b"",
    }  # fmt: skip
    schema = TABLES["events"].features
    event = decode_record(encode_record({}, schema), schema)
    assert (event["position"], event["local_hour"]) == (-1, -1)
    assert math.isnan(event["dwell_seconds"])


def test_equal_records_have_equal_bytes() -> None:
    backwards = dict(reversed(FULL.items()))
    assert encode_record(FULL, SCHEMA) == encode_record(backwards, SCHEMA)


def test_both_readers_give_all_records_in_order(prepared: PreparedData) -> None:
    rows = list(prepared.rows("products"))
    assert prepared.count("products") == len(rows) == 10
    assert [row["product_id"] for row in rows] == [f"p{i}" for i in range(10)]
    elements = list(prepared.dataset("products").as_numpy_iterator())
    assert [tensor_to_plain(element) for element in elements[:9]] == rows[:9]
    last = elements[9]
    assert math.isnan(last["price"])
    assert last["in_stock"] == 1
    assert last["images"].shape == (0,)
    assert last["title"] == b""


def tensor_to_plain(element: dict[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for name, stored in SCHEMA.items():
        value = element[name]
        match stored:
            case "text":
                plain[name] = value.decode()
            case "texts":
                plain[name] = [item.decode() for item in value]
            case "medias":
                plain[name] = list(value)
            case _:
                plain[name] = value.item() if isinstance(value, np.generic) else value
    return plain


def test_rows_hold_the_columns_asked_for_and_no_others(prepared: PreparedData) -> None:
    first = next(prepared.rows("products", ["price", "images"]))
    assert first == {"price": 9.5, "images": FULL["images"]}


def test_a_shard_without_records_is_no_trouble(prepared: PreparedData, tmp_path: Path) -> None:
    with ShardWriter(tmp_path, "products", shards=3) as writer:
        writer.write(2, encode_record({"product_id": "only"}, SCHEMA))
    assert [row["product_id"] for row in prepared.rows("products")] == ["only"]


def test_unknown_tables_and_columns_are_named(prepared: PreparedData) -> None:
    assert prepared.count("events") == 0
    with pytest.raises(TfmmError, match="expected a table events"):
        prepared.dataset("events")
    with pytest.raises(TfmmError, match=r"expected columns among product_id, .* received colour"):
        prepared.rows("products", ["colour"])


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        (None, "expected a folder written by tfmm prepare, found no manifest.json"),
        ("{", "expected JSON"),
        ("[]", "expected the manifest of a prepared dataset"),
        ('{"format": 2}', "in format 1"),
        (
            '{"format": 1, "tables": {"products": {"files": ["gone.gz"]}}}',
            "expected gone.gz, which the manifest names",
        ),
    ],
)
def test_another_folder_is_refused(tmp_path: Path, manifest: str | None, reason: str) -> None:
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(TfmmError, match=reason):
        PreparedData(tmp_path)


def test_shoppers_spread_over_the_shards_the_same_in_every_run() -> None:
    counts = np.bincount([shard_of(f"user-{i}", 8) for i in range(8000)], minlength=8)
    assert counts.min() > 850
    assert shard_of("123456789", 1000) == 0xCBF43926 % 1000  # the check value of CRC-32
