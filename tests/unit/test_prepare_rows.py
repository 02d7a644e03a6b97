"""`prepare` row by row: what is written, what is rejected and why, and that the counts add up."""

from __future__ import annotations

import base64
import csv
import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from sample_media import photo, sound

from tfmm.config import Config, config_from_dict
from tfmm.errors import TfmmError
from tfmm.records.tfrecord import PreparedData
from tfmm.workflows.prepare import prepare

LENIENT = config_from_dict({"prepare": {"max_reject_fraction": 1.0, "shards": 3}})
EVENT = {"timestamp": "2020-09-21", "event_type": "click", "product_id": "p1", "user_id": "u1"}


def write_jsonl(folder: Path, **tables: list[dict[str, Any]]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, rows in tables.items():
        lines = [json.dumps(row) + "\n" for row in rows]
        (folder / f"{name}.jsonl").write_text("".join(lines))
    return folder


def b64(content: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(content).decode()}


def prepared(dataset: Path, config: Config = LENIENT) -> PreparedData:
    out = dataset.parent / "out"
    manifest = prepare(dataset, out, config=config, progress=False)
    for part in manifest["tables"].values():
        assert part["read"] == part["written"] + part["rejected"]
    return PreparedData(out)


def rejects(data: PreparedData) -> list[tuple[str, int, str]]:
    lines = (data.path / "rejects.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert all(set(line) == {"table", "file", "row", "field", "reason"} for line in found)
    assert sum(part["rejected"] for part in data.manifest["tables"].values()) == len(found)
    return [(line["file"], line["row"], line["field"]) for line in found]


def reason_of(data: PreparedData, index: int = 0) -> str:
    lines = (data.path / "rejects.jsonl").read_text().splitlines()
    return str(json.loads(lines[index])["reason"])


def test_good_rows_of_all_tables_are_written(tmp_path: Path) -> None:
    products = [
        {
            "product_id": "p1", "title": "red 👠", "price": 9.5, "in_stock": "no", "colour": "red",
            "size": 42, "image": b64(photo()), "images": [b64(photo("PNG"))], "reviews": ["good"],
            "audio": b64(sound()), "video": b64(b"any bytes"),
        },
        {"product_id": "p2"},
    ]  # fmt: skip
    event = EVENT | {"timestamp": "2020-09-21T18:30:00+08:00", "query_image": b64(photo())}
    event |= {"query_audio": b64(sound()), "position": 3, "dwell_seconds": 1.5, "place": "上海"}
    query = {"query_id": "q1", "text": "red", "history": ["p1", "gone"], "exclude": "p2"}
    query |= {"slice": "synonym", "intent": "i1", "note": "extra"}
    judgment = {"query_id": "q1", "product_id": "p1", "grade": 3}
    data = prepared(
        write_jsonl(
            tmp_path / "shop", products=products, events=[event], queries=[query],
            judgments=[judgment],
        )
    )  # fmt: skip
    first, second = data.rows("products")
    assert first == {
        "product_id": "p1", "title": "red 👠", "description": "", "category": "", "brand": "",
        "price": 9.5, "in_stock": 0, "images": [photo(), photo("PNG")], "audio": [sound()],
        "reviews": ["good"], "video": b"any bytes", "colour": "red", "size": 42.0,
    }  # fmt: skip
    assert second["product_id"] == "p2"
    assert math.isnan(second["size"])
    assert list(data.rows("events")) == [
        {
            "timestamp_us": 1_600_684_200_000_000, "event_type": "click", "product_id": "p1",
            "user_id": "u1", "session_id": "", "query_text": "", "query_image": photo(),
            "query_audio": sound(), "position": 3, "dwell_seconds": 1.5, "place": "上海",
            "local_hour": 18,
        }
    ]  # fmt: skip
    assert list(data.rows("queries")) == [
        {
            "query_id": "q1", "text": "red", "image": b"", "audio": b"",
            "history": ["p1", "gone"], "exclude": ["p2"], "slice": "synonym", "intent": "i1",
            "note": "extra",
        }
    ]  # fmt: skip
    assert list(data.rows("judgments")) == [{"query_id": "q1", "product_id": "p1", "grade": 3.0}]
    assert rejects(data) == []
    counts = data.manifest["tables"]["products"]["columns"]
    assert (counts["product_id"], counts["title"], counts["images"], counts["brand"]) == (
        2,
        1,
        1,
        0,
    )


BAD_PRODUCTS = {
    "no id": ({"title": "x"}, "product_id", "expected a value, found none"),
    "blank id": ({"product_id": " "}, "product_id", "expected an id"),
    "NUL in id": ({"product_id": "a\0"}, "product_id", "without NUL"),
    "duplicate id": ({"product_id": "p1"}, "product_id", "expected one row of 'p1'"),
    "price abc": ({"product_id": "x", "price": "abc"}, "price", "expected a number"),
    "negative price": ({"product_id": "x", "price": -1}, "price", "expected at least 0"),
    "stock maybe": ({"product_id": "x", "in_stock": "maybe"}, "in_stock", "expected true/false"),
    "title list": ({"product_id": "x", "title": ["a"]}, "title", "expected text"),
    "0-byte photo": ({"product_id": "x", "image": "empty.jpg"}, "image", "received 0 bytes"),
    "missing file": ({"product_id": "x", "image": "gone.jpg"}, "image", "'gone.jpg': No such file"),
    "folder": ({"product_id": "x", "image": "."}, "image", "expected a readable file"),
    "truncated": (
        {"product_id": "x", "images": "cut.jpg|good.jpg"},
        "images",
        "expected a whole photo",
    ),
    "escape": ({"product_id": "x", "image": "../secret.jpg"}, "image", "inside the dataset"),
    "absolute": ({"product_id": "x", "image": "/etc/passwd"}, "image", "inside the dataset"),
    "link out": ({"product_id": "x", "image": "link.jpg"}, "image", "inside the dataset"),
    "URL": ({"product_id": "x", "image": "http://a.example/1.jpg"}, "image", "path in the dataset"),
    "Opus": ({"product_id": "x", "audio": "voice.opus"}, "audio", "received Opus"),
    "cut Ogg": ({"product_id": "x", "audio": "cut.ogg"}, "audio", "truncated"),
    "empty video": ({"product_id": "x", "video": "empty.jpg"}, "video", "received 0 bytes"),
}


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A dataset folder with media files, good and bad."""
    folder = tmp_path / "shop"
    folder.mkdir()
    voice = sound("OGG", "VORBIS", seconds=2.0)
    files = {
        "empty.jpg": b"", "good.jpg": photo(), "cut.jpg": photo()[:300],
        "really_a_png.jpg": photo("PNG"), "voice.ogg": voice, "cut.ogg": voice[:-100],
        "voice.opus": sound("OGG", "OPUS", rate_hz=48_000),
    }  # fmt: skip
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (tmp_path / "secret.jpg").write_bytes(photo())
    (folder / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    return folder


@pytest.mark.parametrize("name", BAD_PRODUCTS)
def test_a_bad_product_is_rejected_with_its_reason_and_the_rest_goes_on(
    shop: Path, name: str
) -> None:
    row, column, reason = BAD_PRODUCTS[name]
    data = prepared(write_jsonl(shop, products=[{"product_id": "p1"}, row, {"product_id": "p2"}]))
    assert [product["product_id"] for product in data.rows("products")] == ["p1", "p2"]
    assert rejects(data) == [("products.jsonl", 2, column)]
    assert reason in reason_of(data)


def test_paths_lead_to_media_and_their_content_decides(shop: Path) -> None:
    row = {"product_id": "p1", "image": "really_a_png.jpg", "images": "good.jpg"}
    data = prepared(write_jsonl(shop, products=[row | {"audio": ["voice.ogg"]}]))
    (product,) = data.rows("products")
    assert product["images"] == [photo("PNG"), photo()]
    assert product["audio"][0].startswith(b"RIFF")


def test_text_with_emoji_stays_and_nul_becomes_a_space(tmp_path: Path) -> None:
    data = prepared(
        write_jsonl(tmp_path / "shop", products=[{"product_id": "p", "title": "a\0👠"}])
    )
    assert next(data.rows("products"))["title"] == "a 👠"


BAD_EVENTS = {
    "unknown product": ({"product_id": "p9"}, "product_id", "received 'p9'"),
    "unknown type": ({"event_type": "view"}, "event_type", "expected one of impression, click"),
    "no time": ({"timestamp": ""}, "timestamp", "found none"),
    "bad time": ({"timestamp": "soon"}, "timestamp", "expected an ISO 8601 time"),
    "nobody": ({"user_id": None}, "user_id", "expected a user_id or a session_id"),
    "position": ({"position": -2}, "position", "expected at least 0"),
    "dwell": ({"dwell_seconds": "long"}, "dwell_seconds", "expected a number"),
    "photo": ({"query_image": {"b64": "AAAA"}}, "query_image", "expected a JPEG"),
    "sound": ({"query_audio": {"b64": "AAAA"}}, "query_audio", "expected WAV"),
}


@pytest.mark.parametrize("name", BAD_EVENTS)
def test_a_bad_event_is_rejected_with_its_reason(tmp_path: Path, name: str) -> None:
    change, column, reason = BAD_EVENTS[name]
    events = [EVENT | change, EVENT]
    data = prepared(write_jsonl(tmp_path / "s", products=[{"product_id": "p1"}], events=events))
    assert data.count("events") == 1
    assert rejects(data) == [("events.jsonl", 1, column)]
    assert reason in reason_of(data)


def test_bad_queries_and_judgments_are_rejected_with_their_reasons(tmp_path: Path) -> None:
    queries = [{"query_id": "q1"}, {"query_id": "q1"}, {"text": "red"}]
    good = {"query_id": "q1", "product_id": "p1", "grade": 1}
    judgments = [
        good, good, good | {"query_id": "q9"}, good | {"product_id": "p9"}, good | {"grade": "x"},
    ]  # fmt: skip
    data = prepared(
        write_jsonl(
            tmp_path / "s", products=[{"product_id": "p1"}], queries=queries, judgments=judgments
        )
    )
    assert rejects(data) == [
        ("queries.jsonl", 2, "query_id"),
        ("queries.jsonl", 3, "query_id"),
        ("judgments.jsonl", 2, "product_id"),
        ("judgments.jsonl", 3, "query_id"),
        ("judgments.jsonl", 4, "product_id"),
        ("judgments.jsonl", 5, "grade"),
    ]


def test_events_on_a_rejected_product_are_rejected(tmp_path: Path) -> None:
    products = [{"product_id": "p0"}, {"product_id": "p1", "price": "abc"}]
    data = prepared(write_jsonl(tmp_path / "s", products=products, events=[EVENT]))
    assert rejects(data)[1] == ("events.jsonl", 1, "product_id")


def test_parquet_csv_and_jsonl_give_the_same_records(tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {
        "product_id": ["p1", "p2", "p3"],
        "title": ['red, "shoe"\n👠', "", "x"],
        "price": [9.5, None, 0.25],
        "in_stock": [True, None, False],
        "colour": ["red", None, "blue"],
        "image": ["good.jpg", None, None],
    }
    events = {
        "timestamp": ["2020-09-21T10:30:00.5", "2020-09-21"], "event_type": ["click", "cart"],
        "product_id": ["p1", "p3"], "session_id": ["s1", "s2"], "position": [0, None],
    }  # fmt: skip
    fingerprints = []
    for kind in ("parquet", "csv", "jsonl"):
        folder = tmp_path / kind / "shop"
        folder.mkdir(parents=True)
        (folder / "good.jpg").write_bytes(photo())
        for name, table in (("products", columns), ("events", events)):
            write_table(folder / f"{name}.{kind}", table)
        data = prepared(folder)
        fingerprints.append(data.manifest["fingerprint"])
        assert [row["price"] for row in data.rows("products")][::2] == [9.5, 0.25]
    assert fingerprints[0] == fingerprints[1] == fingerprints[2]


def write_table(path: Path, columns: dict[str, list[Any]]) -> None:
    rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    match path.suffix:
        case ".parquet":
            pq.write_table(pa.table(columns), path)
        case ".csv":
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, columns)
                writer.writeheader()
                writer.writerows(rows)
        case _:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_arrow_times_and_media_bytes_of_parquet_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    struct = {"bytes": photo("PNG"), "path": None}
    pq.write_table(
        pa.table({"product_id": [1, 2], "image": [photo(), None], "images": [[], [struct]]}),
        folder / "products.parquet",
    )
    second = 1_600_684_200
    times = pa.array([second, second + 1], pa.timestamp("s", "Asia/Shanghai"))
    columns = {"timestamp": times, "event_type": ["click"] * 2, "product_id": [1, 2]}
    pq.write_table(pa.table(columns | {"user_id": [7, 8]}), folder / "events.parquet")
    data = prepared(folder)
    assert [row["images"] for row in data.rows("products")] == [[photo()], [photo("PNG")]]
    found = {
        (row["timestamp_us"], row["local_hour"], row["user_id"]) for row in data.rows("events")
    }
    assert found == {(second * 1_000_000, 18, "7"), ((second + 1) * 1_000_000, 18, "8")}


def test_columns_that_the_recipe_names_hold_what_it_says(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "products.csv").write_text("product_id,size,weight,code\np1,42,1.5,007\n")
    catalogue = {"facets": ["size"], "ranges": ["price", "weight"]}
    data = prepared(folder, config_from_dict({"catalogue": catalogue}))
    (product,) = data.rows("products")
    assert (product["size"], product["weight"], product["code"]) == ("42", 1.5, "007")


def test_a_column_that_the_recipe_names_must_be_there(tmp_path: Path) -> None:
    folder = write_jsonl(tmp_path / "shop", products=[{"product_id": "p1"}])
    config = config_from_dict({"catalogue": {"facets": ["colour"]}})
    with pytest.raises(TfmmError, match=r"expected a column colour, which catalogue.facets names"):
        prepare(folder, tmp_path / "out", config=config, progress=False)


def test_columns_that_no_feature_can_hold_are_listed(tmp_path: Path) -> None:
    folder = write_jsonl(tmp_path / "s", products=[{"product_id": "p1", "vector": [1.0, 2.0]}])
    data = prepared(folder)
    assert data.manifest["tables"]["products"]["left_out"] == ["vector"]


def test_a_csv_of_other_bytes_or_widths_loses_only_these_rows(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    content = b"product_id,title\np1,ok\np2\np3,caf\xe9\np4,caf\xc3\xa9\n"
    (folder / "products.csv").write_bytes(content)
    data = prepared(folder)
    assert [row["title"] for row in data.rows("products")] == ["ok", "café"]
    assert rejects(data) == [("products.csv", 2, "row"), ("products.csv", 3, "title")]


def test_one_shoppers_events_share_a_shard_in_the_order_of_the_log(tmp_path: Path) -> None:
    events = [
        EVENT | {"timestamp": (7919 * i) % 1000, "user_id": f"u{i % 17}", "position": i}
        for i in range(300)
    ]
    for event in events[::3]:
        event["session_id"] = event.pop("user_id")
    data = prepared(write_jsonl(tmp_path / "s", products=[{"product_id": "p1"}], events=events))
    shards: dict[str, set[int]] = {}
    order: dict[str, list[int]] = {}
    position = 0
    for shard, file in enumerate(data.files("events")):
        count = sum(1 for _ in tf.data.TFRecordDataset(file, compression_type="GZIP"))
        rows = list(data.rows("events", ["user_id", "session_id", "position"]))
        for row in rows[position : position + count]:
            shopper = row["user_id"] or row["session_id"]
            shards.setdefault(shopper, set()).add(shard)
            order.setdefault(shopper, []).append(row["position"])
        position += count
    assert position == 300
    assert all(len(where) == 1 for where in shards.values())
    assert len({next(iter(where)) for where in shards.values()}) == 3
    assert all(places == sorted(places) for places in order.values())


def test_products_keep_their_order_over_the_shards(tmp_path: Path) -> None:
    products = [{"product_id": f"p{i * 7919 % 100}"} for i in range(100)]
    products[40]["price"] = "abc"
    data = prepared(write_jsonl(tmp_path / "s", products=products))
    expected = [row["product_id"] for row in products if "price" not in row]
    assert [row["product_id"] for row in data.rows("products")] == expected
    assert [Path(file).name for file in data.files("products")] == [
        f"products-0000{i}-of-00003.tfrecord.gz" for i in range(3)
    ]
