"""A `prepare` killed at any moment, then run again, ends in the undisturbed result."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from folders import tree
from killing import KILLED_AT
from sample_media import photo, sound

from tfmm.config import Config
from tfmm.errors import TfmmError
from tfmm.records.tfrecord import PreparedData
from tfmm.workflows.prepare import prepare

# Runs prepare in a process that kills itself in front of the n-th call.
CHILD = """
import os, sys
from tfmm.config import Config
from tfmm.records import media, tfrecord
from tfmm.workflows.prepare import prepare

dataset, out, moment, calls = *sys.argv[1:4], int(sys.argv[4])

match moment:
    case "record":
        tfrecord.ShardWriter.write = killed_at(tfrecord.ShardWriter.write)
    case "sound":
        media.normalise_sound = killed_at(media.normalise_sound)
    case "rename":
        os.rename = killed_at(os.rename)
prepare(dataset, out, config=Config(), progress=False)
"""
EVENTS = 15_000


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "shop"
    folder.mkdir()
    (folder / "1.jpg").write_bytes(photo("WEBP"))
    (folder / "1.ogg").write_bytes(sound("OGG", "VORBIS", rate_hz=22_050))
    products = ["product_id,title,image", *(f"p{i},shoe {i},1.jpg" for i in range(50))]
    (folder / "products.csv").write_text("\n".join(products))
    events = [
        f"2020-09-21,click,p{i % 51},u{i % 97},{'1.ogg' if i % 100 == 0 else ''}"
        for i in range(EVENTS)
    ]
    events.insert(0, "timestamp,event_type,product_id,user_id,query_audio")
    (folder / "events.csv").write_text("\n".join(events))
    return folder


@pytest.fixture(scope="module")
def undisturbed(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    manifest = prepare(shop, out, config=Config(), progress=False)
    assert manifest["tables"]["events"]["rejected"] == EVENTS // 51
    return tree(out)


def child(shop: Path, out: Path, moment: str, calls: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", KILLED_AT + CHILD, str(shop), str(out), moment, str(calls)]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def earlier_result(folder: Path) -> Path:
    """A prepared dataset of another source, which the killed run was to replace."""
    (folder / "other").mkdir()
    (folder / "other" / "products.csv").write_text("product_id\nold\n")
    prepare(folder / "other", folder / "out", config=Config(), progress=False)
    return folder / "out"


@pytest.mark.parametrize(
    ("moment", "calls"),
    [
        pytest.param("record", 1, marks=pytest.mark.slow),
        pytest.param("record", 60, marks=pytest.mark.slow),
        pytest.param("sound", 1, marks=pytest.mark.slow),
        ("record", 12_000),
        ("rename", 1),
        ("rename", 2),
    ],
)
def test_killed_and_run_again_it_ends_in_the_undisturbed_result(
    shop: Path, tmp_path: Path, undisturbed: dict[str, bytes], moment: str, calls: int
) -> None:
    out = earlier_result(tmp_path)
    before = tree(out)
    assert child(shop, out, moment, calls).wait() == -signal.SIGKILL
    between_the_renames = (moment, calls) == ("rename", 2)
    assert out.exists() != between_the_renames
    if out.exists():
        assert tree(out) == before
    prepare(shop, out, config=Config(), progress=False)
    assert tree(out) == undisturbed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "out"]


def test_killed_from_outside_and_run_again_it_ends_in_the_undisturbed_result(
    shop: Path, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    out = tmp_path / "out"
    process = child(shop, out, "never", 0)
    shard = tmp_path / ".out.staging" / "events-00000-of-00008.tfrecord.gz"
    while process.poll() is None and not shard.exists():
        time.sleep(0.005)
    with pytest.raises(TfmmError, match="found another process"):
        prepare(shop, out, config=Config(), progress=False)
    process.kill()
    process.wait()
    with pytest.raises(TfmmError, match="expected a folder written by tfmm prepare"):
        PreparedData(out)
    prepare(shop, out, config=Config(), progress=False)
    assert tree(out) == undisturbed
