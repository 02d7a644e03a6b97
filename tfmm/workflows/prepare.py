"""`tfmm prepare`: a dataset folder becomes checked, sharded TFRecord files with a manifest."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from tfmm import __version__
from tfmm.config import Config
from tfmm.errors import TfmmError
from tfmm.records.conversion import Conversion
from tfmm.records.outcomes import TooManyRejectsError
from tfmm.records.sources import find_tables
from tfmm.records.spark import SparkConversion
from tfmm.records.staging import Staging, check_target, source_stamp
from tfmm.records.tfrecord import FORMAT, PreparedData
from tfmm.runners import options_of

Runner = Literal["local", "spark"]


def prepare(
    dataset: str | Path,
    out: str | Path,
    *,
    config: Config,
    progress: bool = True,
    runner: Runner = "local",
    options: Sequence[str] = (),
) -> dict[str, Any]:
    """Reads a dataset folder, checks every row, and writes the good ones as TFRecord shards.

    Bad rows go to `OUT/rejects.jsonl`. The result appears at once or not at all, the same bytes
    from the same source; if it is there already, it stays.

    Args:
      dataset: The folder to read: see `records.tables.find_tables`.
      out: The folder to write; an earlier result in it is replaced.
      config: Its `prepare` and `catalogue` parts are used.
      progress: Whether to show progress on stderr.
      runner: Who does the work, which does not change what comes of it. The executors of Spark
        must see the dataset and the folder of `out` under the same names.
      options: Settings of Spark, as "NAME=VALUE".

    Returns:
      The manifest.

    Raises:
      TfmmError: A file is missing or cannot be read, more than `max_reject_fraction` of a table's
        rows are bad (they are then in `OUT.rejects.jsonl`), `out` is not to be written, or Spark
        cannot do it.
    """
    source, target = Path(dataset).resolve(), Path(out).resolve()
    check_target(source, target)
    by_spark = partial(SparkConversion, options=options_of(options))
    by = by_spark if runner == "spark" else Conversion
    files = find_tables(source)
    kept_rejects = target.with_name(f"{target.name}.rejects.jsonl")
    with Staging(target) as staging:
        settings = [FORMAT, __version__, asdict(config.prepare), asdict(config.catalogue)]
        stamp = source_stamp(source, leave_out=target, settings=settings)
        if _stamp_of(target) == stamp:
            return PreparedData(target).manifest
        try:
            conversion = by(source, staging.path, config=config, console=_console(progress))
            manifest = conversion.write(files)
        except TooManyRejectsError as error:
            os.replace(staging.path / "rejects.jsonl", kept_rejects)
            raise TfmmError(f"{error}; all are in {kept_rejects}") from None
        _write_json(staging.path / "source.json", {"stamp": stamp})
        _write_json(staging.path / "manifest.json", manifest)
        staging.publish()
    kept_rejects.unlink(missing_ok=True)
    return manifest


def _stamp_of(out: Path) -> str:
    """The stamp of the source that `out` was made of, "" if it is not whole."""
    try:
        PreparedData(out)
        return str(json.loads((out / "source.json").read_text(encoding="utf-8"))["stamp"])
    except (TfmmError, OSError, ValueError, KeyError):
        return ""


def _write_json(path: Path, content: Any) -> None:
    text = json.dumps(content, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def _console(progress: bool) -> Console:
    return Console(stderr=True, quiet=not progress, markup=False, highlight=False)
