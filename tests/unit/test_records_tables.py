"""Source files: rows and their numbers, what a file as a whole may look like, memory."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tfmm.errors import TfmmError
from tfmm.records import tables
from tfmm.records.schema import EVENTS, PRODUCTS
from tfmm.records.sources import SourceFile, find_tables
from tfmm.records.tables import read_rows, survey
from tfmm.records.values import Unreadable


def source(folder: Path, name: str, content: bytes) -> SourceFile:
    path = folder / name
    path.write_bytes(content)
    return find_tables(folder)["products"][0]


def rows(file: SourceFile) -> list[tuple[int, Any]]:
    return [(row.row, row.problem or row.values) for row in read_rows(file)]


def test_csv_rows_are_counted_from_one_and_wrong_widths_keep_their_place(tmp_path: Path) -> None:
    file = source(
        tmp_path, "products.csv", b'product_id,title\np1,a\np2\n\np3,"x\ny, z"\np4,b,c\np5,\n'
    )
    assert rows(file) == [
        (1, {"product_id": "p1", "title": "a"}),
        (2, "expected 2 columns, received 1"),
        (3, {"product_id": "p3", "title": "x\ny, z"}),
        (4, "expected 2 columns, received 3"),
        (5, {"product_id": "p5", "title": ""}),
    ]
    assert survey(PRODUCTS, file).rows == 5


def test_csv_rows_of_many_blocks_keep_their_numbers(tmp_path: Path) -> None:
    lines = [f"p{i},{'t' * 90}" if i % 1000 else f"p{i}" for i in range(1, 30_001)]
    file = source(tmp_path, "products.csv", ("product_id,title\n" + "\n".join(lines)).encode())
    assert file.path.stat().st_size > 2 * 2**20
    found = list(read_rows(file))
    assert [row.row for row in found] == list(range(1, 30_001))
    assert [row.row for row in found if row.values is None] == list(range(1000, 30_001, 1000))
    assert all(row.values["product_id"] == f"p{row.row}" for row in found if row.values)
    assert survey(PRODUCTS, file).rows == 30_000


def test_csv_rows_may_be_long_but_an_open_quotation_mark_is_an_error(tmp_path: Path) -> None:
    long = "x" * 400_000
    content = f'product_id,title\np1,a\np2,"{long}\n{long}"\np3,b\n'.encode()
    file = source(tmp_path, "products.csv", content)
    assert [len(row.values["title"]) for row in read_rows(file)] == [1, 800_001, 1]
    content = b'product_id,title\np1,"open\n' + b"p2,closed\n" * 500_000
    file = source(tmp_path, "products.csv", content)
    with pytest.raises(TfmmError, match="a row longer than 1048576 bytes; is a quotation mark"):
        list(read_rows(file))


def test_csv_cells_are_text_as_they_are_written(tmp_path: Path) -> None:
    file = source(tmp_path, "products.csv", "﻿product_id,brand\n007,NA\nnull,👠\n".encode())
    assert [row.values for row in read_rows(file)] == [
        {"product_id": "007", "brand": "NA"},
        {"product_id": "null", "brand": "👠"},
    ]


def test_csv_cells_that_are_not_utf_8_spoil_only_themselves(tmp_path: Path) -> None:
    file = source(tmp_path, "products.csv", b"product_id,title\np1,caf\xe9\np2,ok\n")
    first, second = (row.values for row in read_rows(file))
    assert first == {
        "product_id": "p1",
        "title": Unreadable("expected UTF-8 text, received other bytes"),
    }
    assert second == {"product_id": "p2", "title": "ok"}


def test_jsonl_rows_are_lines_and_bad_ones_do_not_end_the_file(tmp_path: Path) -> None:
    lines = [b'{"product_id": 1}', b"", b"{oops", b"[1]", b'{"a": "\xff"}', b'{"product_id": 2}']
    file = source(tmp_path, "products.jsonl", b"\n".join(lines))
    found = rows(file)
    assert [row for row, _ in found] == [1, 3, 4, 5, 6]
    assert found[0][1] == {"product_id": 1}
    assert all(str(value).startswith("expected a JSON object") for _, value in found[1:4])
    assert found[4][1] == {"product_id": 2}
    assert survey(PRODUCTS, file).rows == 5


def test_compressed_text_reads_like_plain_text(tmp_path: Path) -> None:
    for name, content in (("csv", b"product_id\np1\n"), ("jsonl", b'{"product_id": "p1"}\n')):
        folder = tmp_path / name
        folder.mkdir()
        file = source(folder, f"products.{name}.gz", gzip.compress(content))
        assert rows(file) == [(1, {"product_id": "p1"})]


def test_parquet_values_that_python_cannot_hold_spoil_only_themselves(tmp_path: Path) -> None:
    # int64 microseconds reach the year 294,000; Python ends at 9999. Bytes are made a string
    # column without a check, as careless writers do.
    broken = pa.array([b"ok", b"\xff"], pa.binary()).view(pa.string())
    times = pa.array([0, 2**62], pa.timestamp("us"))
    path = tmp_path / "products.parquet"
    pq.write_table(pa.table({"product_id": ["p1", "p2"], "title": broken, "when": times}), path)
    first, second = (row.values for row in read_rows(find_tables(tmp_path)["products"][0]))
    assert first["title"] == "ok"
    assert isinstance(second["title"], Unreadable)
    assert isinstance(second["when"], Unreadable)


def test_nanosecond_times_and_dictionaries_of_parquet_are_read(tmp_path: Path) -> None:
    table = pa.table(
        {
            "product_id": pa.array(["p1"]).dictionary_encode(),
            "when": pa.array([1_600_000_000_123_456_789], pa.timestamp("ns", "UTC")),
        }
    )
    pq.write_table(table, tmp_path / "products.parquet")
    (row,) = read_rows(find_tables(tmp_path)["products"][0])
    assert row.values["product_id"] == "p1"
    assert row.values["when"].microsecond == 123_456


def test_columns_hold_what_their_types_say(tmp_path: Path) -> None:
    table = pa.table(
        {"product_id": ["p"], "size": [1], "ok": [True], "colour": ["red"], "vector": [[1.0]]}
    )
    pq.write_table(table, tmp_path / "products.parquet")
    columns = survey(PRODUCTS, find_tables(tmp_path)["products"][0]).columns
    assert columns == {
        "product_id": "text", "size": "float", "ok": "float", "colour": "text", "vector": None,
    }  # fmt: skip


def test_a_jsonl_column_is_a_number_only_if_it_is_one_throughout(tmp_path: Path) -> None:
    lines = [{"product_id": 1, "size": 1, "w": 2, "v": []}, {"size": "XL", "w": None, "v": [1]}]
    content = "\n".join(map(json.dumps, lines)).encode()
    columns = survey(PRODUCTS, source(tmp_path, "products.jsonl", content)).columns
    assert columns == {"product_id": "float", "size": "text", "w": "float", "v": None}


@pytest.mark.parametrize(
    ("delimiter", "spoken"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")]
)
def test_a_wrong_delimiter_is_named(tmp_path: Path, delimiter: str, spoken: str) -> None:
    content = f"product_id{delimiter}title\np1{delimiter}a\n".encode()
    file = source(tmp_path, "products.csv", content)
    with pytest.raises(TfmmError, match=f"separated by commas, found the header .*{spoken}") as e:
        survey(PRODUCTS, file)
    assert "product_id" in str(e.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"id,title\np1,a\n", "expected a column product_id, found the header 'id, title'"),
        (b"product_id,a,a\np1,b,c\n", "expected each column once, found 'a' twice"),
        (b"\n\n", "expected readable csv, found: "),
    ],
)
def test_a_header_that_will_not_do_is_an_error(tmp_path: Path, content: bytes, reason: str) -> None:
    file = source(tmp_path, "products.csv", content)
    with pytest.raises(TfmmError, match=f"products.csv: {reason}"):
        survey(PRODUCTS, file)


def test_a_file_that_is_not_what_its_name_says_is_an_error(tmp_path: Path) -> None:
    for name in ("products.parquet", "products.jsonl.gz", "products.csv.gz"):
        folder = tmp_path / name.replace(".", "-")
        folder.mkdir()
        file = source(folder, name, b"this is neither Parquet nor gzip")
        with pytest.raises(TfmmError, match=f"{name}: expected readable"):
            survey(PRODUCTS, file)


def test_a_compressed_file_cut_short_is_an_error(tmp_path: Path) -> None:
    lines = "".join(f'{{"product_id": "{i * 7919}"}}\n' for i in range(5000))
    whole = gzip.compress(lines.encode())
    file = source(tmp_path, "products.jsonl.gz", whole[: len(whole) // 2])
    with pytest.raises(TfmmError, match="expected readable jsonl"):
        list(read_rows(file))


def test_a_folder_of_files_is_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "products.csv").write_text("product_id\np1\n")
    events = tmp_path / "events"
    events.mkdir()
    for name in ("b.csv", "a.jsonl", "c.parquet", "_SUCCESS", ".hidden.csv", "README"):
        (events / name).write_text("x")
    names = [file.name for file in find_tables(tmp_path)["events"]]
    assert names == ["events/a.jsonl", "events/b.csv", "events/c.parquet"]


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "expected products.parquet, products.csv or products.jsonl, found none"),
        ({"product.csv": "x"}, "expected products.parquet, products.csv"),
        ({"products.csv": ""}, "products.csv: expected at least one row, found an empty file"),
        (
            {"products.csv": "x", "products.jsonl": "x"},
            "expected one source of products, found products.csv, products.jsonl",
        ),
        (
            {"products.csv": "x", "events.csv": "x", "events/a.csv": "x"},
            "expected one source of events",
        ),
    ],
)
def test_a_folder_without_one_source_a_table_is_an_error(
    tmp_path: Path, files: dict[str, str], reason: str
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    with pytest.raises(TfmmError, match=reason):
        find_tables(tmp_path)


def test_a_folder_of_photos_beside_a_table_of_the_same_name_is_none_of_its_sources(
    tmp_path: Path,
) -> None:
    (tmp_path / "products.csv").write_text("product_id\np1\n")
    (tmp_path / "products").mkdir()
    (tmp_path / "products" / "1.jpg").write_text("x")
    assert [file.name for file in find_tables(tmp_path)["products"]] == ["products.csv"]


@pytest.mark.parametrize("row_group", [200, 4000])
def test_a_large_parquet_file_is_never_in_memory(
    tmp_path: Path, row_group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "BATCH_ROWS", 100)
    path = tmp_path / "products.parquet"
    photos = [os.urandom(10_000) for _ in range(4000)]
    table = pa.table({"product_id": [str(i) for i in range(4000)], "image": photos})
    pq.write_table(table, path, row_group_size=row_group)
    del table, photos
    before, most = pa.total_allocated_bytes(), 0
    for _ in read_rows(find_tables(tmp_path)["products"][0]):
        most = max(most, pa.total_allocated_bytes() - before)
    # The file has 40 MB, a batch 1 MB; a few pages and batches are read ahead.
    assert 0 < most < 25e6


def test_a_large_csv_file_is_never_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_BUFFER_BYTES", 1 << 16)
    path = tmp_path / "events.csv"
    (tmp_path / "products.csv").write_text("product_id\np1\n")
    line = "2020-09-21,click,p1,u1," + "x" * 177 + "\n"
    path.write_text("timestamp,event_type,product_id,user_id,query_text\n" + line * 50_000)
    before, most = pa.total_allocated_bytes(), 0
    file = find_tables(tmp_path)["events"][0]
    assert survey(EVENTS, file).rows == 0
    for row in read_rows(file):
        if row.row % 500 == 0:
            most = max(most, pa.total_allocated_bytes() - before)
    assert row.row == 50_000
    assert 0 < most < 4e6  # of 10 MB; 32 blocks are read ahead


def test_rows_are_handed_on_before_the_file_is_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "BATCH_ROWS", 2)
    pq.write_table(pa.table({"product_id": ["1", "2", "3"]}), tmp_path / "products.parquet")
    calls = []
    original = tables._cells
    monkeypatch.setattr(tables, "_cells", lambda c: calls.append(len(c)) or original(c))
    reader = read_rows(find_tables(tmp_path)["products"][0])
    next(reader)
    assert calls == [2]
    assert [row.row for row in reader] == [2, 3]
    assert calls == [2, 1]
