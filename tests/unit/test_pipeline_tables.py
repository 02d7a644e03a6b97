"""pipelines.tables: a source read row by row, and tables that are written together."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import tables
from tfmm.errors import TfmmError

NUMBERS = pa.schema({"number": pa.int64()})


def numbers(*values: int) -> tables.Table:
    return tables.Table(NUMBERS, ({"number": value} for value in values))


def failing():
    yield {"number": 7}
    raise TfmmError("source:2: expected a number, received none")


def test_csv_cells_come_in_the_order_asked_for_with_their_line(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text('\ufeffid,title,more\n1,"two\nlines",x\n\n2,"a ""b"", c",y\n', encoding="utf-8")
    found = list(tables.read_csv(path, ["title", "id"]))
    assert found == [(f"{path}:3", ["two\nlines", "1"]), (f"{path}:5", ['a "b", c', "2"])]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"id,name\n1,a\n", r"a\.csv: expected the column title, found none"),
        (b"", r"a\.csv: expected the column id, found none"),
        (b"id,title\n1,a\n2\n", r"a\.csv:3: expected 2 cells, received 1"),
        (b"id,title\n1,a,b\n", r"a\.csv:2: expected 2 cells, received 3"),
        (b'id,title\n1,"a\n', r"a\.csv: expected CSV in UTF-8, received: "),
        (b"id,title\n1,\xff\n", r"a\.csv: expected CSV in UTF-8, received: "),
    ],
)
def test_what_is_no_such_csv_is_told_in_a_sentence(tmp_path: Path, content: bytes, sentence: str):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(TfmmError, match=sentence) as caught:
        list(tables.read_csv(tmp_path / "a.csv", ["id", "title"]))
    assert "\n" not in str(caught.value)


def test_lines_are_numbered_and_blank_ones_skipped(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("one two\n\n three \n")
    assert list(tables.read_lines(path)) == [(f"{path}:1", "one two"), (f"{path}:3", "three")]
    path.write_bytes(b"\xff\xfe\n")
    with pytest.raises(TfmmError, match=r"a\.txt: expected UTF-8 text"):
        list(tables.read_lines(path))


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    for read in (tables.read_csv, tables.read_parquet):
        with pytest.raises(TfmmError, match="nowhere: expected"):
            list(read(tmp_path / "nowhere", ["id"]))
    with pytest.raises(TfmmError, match="nowhere: expected"):
        list(tables.read_lines(tmp_path / "nowhere"))


def test_parquet_rows_come_in_order_whatever_the_batches(tmp_path: Path, monkeypatch):
    pq.write_table(pa.table({"a": [3, 1, 2], "b": ["x", "y", None]}), tmp_path / "t.parquet")
    monkeypatch.setattr(tables, "ROWS_AT_ONCE", 2)
    found = list(tables.read_parquet(tmp_path / "t.parquet", ["b"]))
    assert found == [{"b": "x"}, {"b": "y"}, {"b": None}]
    with pytest.raises(TfmmError, match=r"t\.parquet: expected the column c, found none"):
        list(tables.read_parquet(tmp_path / "t.parquet", ["a", "c"]))
    whole = (tmp_path / "t.parquet").read_bytes()
    (tmp_path / "t.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TfmmError, match=r"t\.parquet: expected a Parquet file, received"):
        list(tables.read_parquet(tmp_path / "t.parquet", ["a"]))


def test_tables_are_written_and_counted(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(tables, "ROWS_AT_ONCE", 2)
    out = tmp_path / "deep" / "out"
    assert tables.write_dataset(out, {"a": numbers(5, 6, 7), "b": numbers()}) == {"a": 3, "b": 0}
    assert pq.read_table(out / "a.parquet").to_pylist() == [{"number": n} for n in (5, 6, 7)]
    assert pq.read_table(out / "b.parquet").schema.equals(NUMBERS)
    assert sorted(path.name for path in out.iterdir()) == ["a.parquet", "b.parquet"]


def test_a_table_that_fails_leaves_all_as_they_were(tmp_path: Path):
    tables.write_dataset(tmp_path, {"a": numbers(1), "b": numbers(2)})
    with pytest.raises(TfmmError, match="source:2"):
        tables.write_dataset(tmp_path, {"a": numbers(3), "b": tables.Table(NUMBERS, failing())})
    assert pq.read_table(tmp_path / "a.parquet").to_pylist() == [{"number": 1}]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.parquet", "b.parquet"]
