from pathlib import Path

import pytest

from tfmm.files import replacing, write_json


def test_the_new_content_appears_whole(tmp_path: Path):
    path = tmp_path / "value.json"
    write_json(path, {"b": "红", "a": [1]})
    assert path.read_text(encoding="utf-8") == '{\n "b": "红",\n "a": [\n  1\n ]\n}'
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_the_old_content_and_nothing_else(tmp_path: Path):
    path = tmp_path / "value"
    path.write_bytes(b"old")

    def fail() -> None:
        with replacing(path) as file:
            file.write(b"new")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
