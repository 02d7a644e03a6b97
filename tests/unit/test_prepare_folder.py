"""`prepare` as a whole: one result or none, the same bytes, nothing of others destroyed."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from pathlib import Path

import pytest
from folders import tree
from sample_media import photo

from tfmm.config import Config, config_from_dict
from tfmm.errors import TfmmError
from tfmm.records import conversion
from tfmm.records.tfrecord import PreparedData
from tfmm.workflows.prepare import prepare


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    (folder / "photos").mkdir(parents=True)
    (folder / "photos" / "1.jpg").write_bytes(photo())
    lines = [
        "product_id,title,image",
        "p1,shoe,photos/1.jpg",
        *(f"p{i},hat," for i in range(2, 41)),
    ]
    (folder / "products.csv").write_text("\n".join(lines) + "\n")
    lines = [f"2020-09-21,click,p{i},u{i % 3}" for i in range(1, 31)]
    lines.insert(0, "timestamp,event_type,product_id,user_id")
    (folder / "events.csv").write_text("\n".join(lines) + "\n")
    return folder


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def run(shop: Path, out: Path, config: Config | None = None) -> PreparedData:
    prepare(shop, out, config=config or Config(), progress=False)
    return PreparedData(out)


def test_the_folder_holds_shards_manifest_and_rejects(shop: Path, tmp_path: Path) -> None:
    data = run(shop, tmp_path / "out")
    shards = {f"{t}-{i:05d}-of-00008.tfrecord.gz" for t in ("products", "events") for i in range(8)}
    assert set(tree(data.path)) == shards | {"manifest.json", "rejects.jsonl", "source.json"}
    assert data.manifest["source"] == "shop"
    assert data.manifest["tables"]["queries"] == {
        "read": 0, "written": 0, "rejected": 0, "files": [], "left_out": [],
        "columns": dict.fromkeys(data.schema("queries"), 0),
    }  # fmt: skip
    assert leftovers(tmp_path) == []


def test_the_same_source_gives_the_same_bytes(shop: Path, tmp_path: Path) -> None:
    assert tree(run(shop, tmp_path / "a").path) == tree(run(shop, tmp_path / "b").path)


def test_the_fingerprint_is_of_the_content_and_not_of_file_times(
    shop: Path, tmp_path: Path
) -> None:
    first = run(shop, tmp_path / "out").manifest
    for path in shop.rglob("*"):
        os.utime(path, (0, 0))
    assert run(shop, tmp_path / "out").manifest == first
    events = shop / "events.csv"
    events.write_text(events.read_text().replace("p30", "p29"))
    assert run(shop, tmp_path / "out").manifest["fingerprint"] != first["fingerprint"]


def test_what_is_up_to_date_is_not_made_again(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(shop, tmp_path / "out").manifest
    calls: list[str] = []
    original = conversion.read_rows
    monkeypatch.setattr(
        conversion, "read_rows", lambda file: calls.append(file.name) or original(file)
    )
    assert prepare(shop, tmp_path / "out", config=Config(), progress=False) == first
    assert calls == []
    assert leftovers(tmp_path) == []
    (shop / "photos" / "1.jpg").write_bytes(photo(quality=30))
    run(shop, tmp_path / "out")
    assert calls == ["products.csv", "events.csv"]
    run(shop, tmp_path / "out", config_from_dict({"prepare": {"shards": 2}}))
    assert len(calls) == 4


def test_an_incomplete_result_is_made_again(shop: Path, tmp_path: Path) -> None:
    whole = tree(run(shop, tmp_path / "out").path)
    (tmp_path / "out" / "events-00003-of-00008.tfrecord.gz").unlink()
    assert tree(run(shop, tmp_path / "out").path) == whole


def test_a_result_inside_the_dataset_folder_is_not_a_change_of_it(shop: Path) -> None:
    first = run(shop, shop / "prepared")
    written = (first.path / "manifest.json").stat().st_ino
    assert (run(shop, shop / "prepared").path / "manifest.json").stat().st_ino == written


def test_what_a_killed_run_left_is_cleared_away(shop: Path, tmp_path: Path) -> None:
    whole = tree(run(shop, tmp_path / "a").path)
    for _ in range(2):
        for name in (".out.staging", ".out.old"):
            (tmp_path / name / "deeper").mkdir(parents=True)
            (tmp_path / name / "events-00000-of-00008.tfrecord.gz").write_bytes(b"half")
        assert tree(run(shop, tmp_path / "out").path) == whole
        assert leftovers(tmp_path) == []


def test_a_run_killed_between_the_two_renames_gives_the_former_result_back(
    shop: Path, tmp_path: Path
) -> None:
    whole = tree(run(shop, tmp_path / "out").path)
    os.rename(tmp_path / "out", tmp_path / ".out.old")
    (shop / "events.csv").write_text("time;type\n")
    with pytest.raises(TfmmError, match="events"):
        run(shop, tmp_path / "out")
    assert tree(tmp_path / "out") == whole
    assert leftovers(tmp_path) == []


def test_two_processes_on_one_result_are_refused(shop: Path, tmp_path: Path) -> None:
    staging = tmp_path / ".out.staging"
    staging.mkdir()
    other = os.open(staging, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(TfmmError, match="found another process"):
        run(shop, tmp_path / "out")
    assert staging.is_dir()
    os.close(other)
    assert run(shop, tmp_path / "out").count("products") == 40


def test_too_many_bad_rows_end_the_run_and_leave_only_their_list(
    shop: Path, tmp_path: Path
) -> None:
    good = tree(run(shop, tmp_path / "out").path)
    events = shop / "events.csv"
    events.write_text(events.read_text().replace(",click,p1", ",view,p1"))
    # p1 and p10 .. p19 are 11 of 30 events.
    reason = (
        r"events: expected at most 5.0% bad rows, found 11 of 30, first events.csv:1: event_type"
    )
    with pytest.raises(TfmmError, match=reason) as caught:
        run(shop, tmp_path / "out")
    kept = tmp_path / "out.rejects.jsonl"
    assert str(kept) in str(caught.value)
    assert [json.loads(line)["row"] for line in kept.read_text().splitlines()] == [
        1,
        *range(10, 20),
    ]
    assert tree(tmp_path / "out") == good
    assert leftovers(tmp_path) == []
    lenient = config_from_dict({"prepare": {"max_reject_fraction": 11 / 30}})
    assert run(shop, tmp_path / "out", lenient).count("events") == 19
    assert not kept.exists()


def test_bad_rows_are_summed_up_on_stderr_and_stdout_stays_empty(
    shop: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    products = shop / "products.csv"
    products.write_text(products.read_text() + "p1,twice,\n")
    prepare(shop, tmp_path / "out", config=Config(), progress=True)
    shown = capfd.readouterr()
    assert shown.out == ""
    assert (
        "products: 1 rows rejected for product_id, first products.csv:41: product_id" in shown.err
    )
    assert "rows/s" in shown.err


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("product_id;title\np1;a\n", "products.csv: expected columns separated by commas"),
        ("product_id\ttitle\np1\ta\n", "separated by tabs"),
        ("title\na\n", "products.csv: expected a column product_id, found the header 'title'"),
        ("", "products.csv: expected at least one row, found an empty file"),
        ("product_id,title\n", "products.csv: expected at least one product, found no rows"),
    ],
)
def test_a_products_file_that_will_not_do_is_one_clear_error(
    shop: Path, tmp_path: Path, header: str, reason: str
) -> None:
    (shop / "products.csv").write_text(header)
    with pytest.raises(TfmmError, match=reason):
        run(shop, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["shop"]


def test_a_log_without_rows_is_no_error(shop: Path, tmp_path: Path) -> None:
    (shop / "events.csv").write_text("timestamp,event_type,product_id,user_id\n")
    data = run(shop, tmp_path / "out")
    assert data.count("events") == 0
    assert list(data.rows("events")) == []


def test_nothing_of_others_is_overwritten(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "diary.txt").write_text("dear diary")
    (tmp_path / "file").write_text("x")
    for target, reason in (
        (shop, "received the dataset's own"),
        (tmp_path, "received the dataset's own"),
        (tmp_path / "notes", "found one with other files"),
        (tmp_path / "file", "found a file"),
    ):
        with pytest.raises(TfmmError, match=reason):
            run(shop, target)
    assert (tmp_path / "notes" / "diary.txt").read_text() == "dear diary"
    assert (shop / "products.csv").exists()


def test_a_link_to_the_result_stays_a_link(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    assert run(shop, tmp_path / "out").count("products") == 40
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "disk" / "manifest.json").exists()


def test_a_dataset_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TfmmError, match="expected a dataset folder, found none"):
        run(tmp_path / "gone", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_moved_result_is_still_a_result(shop: Path, tmp_path: Path) -> None:
    run(shop, tmp_path / "out")
    shutil.move(tmp_path / "out", tmp_path / "moved")
    assert sum(1 for _ in PreparedData(tmp_path / "moved").rows("products")) == 40
