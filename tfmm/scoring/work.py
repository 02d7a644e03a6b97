"""The working folder of a job: taken up again after a kill, and published when all is there."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from tfmm import __version__
from tfmm.errors import TfmmError
from tfmm.records.staging import Staging, check_target, source_stamp
from tfmm.scoring.job import BLOCKS, Job, outcome_of
from tfmm.scoring.previous import lay_down, why_not
from tfmm.scoring.rows import Asked, Checker
from tfmm.scoring.shoppers import divide, plan_shoppers
from tfmm.scoring.sources import Plan, plan_table
from tfmm.scoring.takes import SIGNATURE, Kind, Takes
from tfmm.scoring.writers import SUFFIX, TEMPORARY, Format, appearing

FORMAT = 1
SPILL = "spill"
_JOB, _PLAN, _MANIFEST, _REJECTS = "job.json", "plan.pickle", "manifest.json", "rejects.jsonl"
_COUNTED = ("read", "written", "rejected", "carried", "hits", "cut_short")


@dataclass(frozen=True)
class Settings:
    """What a job is to do, beside its model and its input.

    Attributes:
      kind: What rows are: queries, the shoppers of a log, or products that others resemble.
      asked: What every row asks for.
      fields: Columns of the hits; None for all that the model declares.
      form: Format of the files.
      as_of_us: Of shoppers: events before this instant count; None for all.
      exclude: Of shoppers: types of the events whose products are left out of their hits.
      since: Of shoppers: an earlier result, whose answers are carried over where a shopper's events
        are the same as then.
      block_rows: Rows of a block, and so of a file; of shoppers the events of one, about.
    """

    kind: Kind = "queries"
    asked: Asked = field(default_factory=Asked)
    fields: tuple[str, ...] | None = None
    form: Format = "parquet"
    as_of_us: int | None = None
    exclude: tuple[str, ...] = ()
    since: Path | None = None
    block_rows: int = 16_384


class Work:
    """One job on its way.

    Attributes:
      takes: What the model takes.
      stamp: Tells the job from others.
    """

    def __init__(self, saved_model: Path, source: Path, out: Path, settings: Settings) -> None:
        """Looks at the model, the input and the place for the result.

        Raises:
          TfmmError: The model is none, there is no input, or `out` is not to be written.
        """
        if not source.exists():
            raise TfmmError(f"{source}: expected a file or a folder to score, found none")
        check_out(source.resolve(), out.resolve())
        self._source, self._settings = source.resolve(), settings
        self.takes = Takes.of(saved_model, settings.kind, settings.fields)
        Checker(self.takes, settings.asked)
        told = asdict(settings) | {"since": self._since()}
        options = [FORMAT, __version__, told, dict(self.takes.identity)]
        self.stamp = _stamp(self._source, out.resolve(), options)

    def done(self, out: Path) -> dict[str, Any] | None:
        """The manifest of `out` if it is this job's result already."""
        manifest = read_manifest(out)
        return manifest if manifest and _read(out / _JOB).get("stamp") == self.stamp else None

    def plan(self, staging: Staging) -> tuple[Job, Plan]:
        """Divides the work, or takes up what an earlier run has left of it."""
        folder, settings = staging.path, self._settings
        if _read(folder / _JOB).get("stamp") != self.stamp:
            staging.clear()
            _write(folder / _JOB, {"stamp": self.stamp})
        for left in folder.rglob(f"{TEMPORARY}*"):
            left.unlink()
        plan = self._planned(folder)
        job = Job(
            stamp=self.stamp,
            saved_model=self.takes.version.resolve(),
            kind=settings.kind,
            source=plan.source,
            asked=settings.asked,
            fields=settings.fields,
            form=settings.form,
            media=self._source if self._source.is_dir() else self._source.parent,
            working=folder,
        )
        return job, plan

    def _planned(self, folder: Path) -> Plan:
        kept = folder / _PLAN
        if kept.is_file():
            with kept.open("rb") as file:
                return cast(Plan, pickle.load(file))
        settings, spill = self._settings, folder / SPILL
        if settings.kind == "shoppers":
            divided = divide(self._source, spill, part_events=settings.block_rows)
            if settings.since is not None:
                self._carry_over(settings.since, spill, divided.parts)
            plan = plan_shoppers(
                divided,
                spill,
                config=self.takes.config,
                as_of_us=settings.as_of_us,
                exclude=settings.exclude,
            )
        else:
            rows = settings.block_rows
            plan = plan_table(self._source, settings.kind, folder=spill, block_rows=rows)
        with appearing(kept) as path:
            path.write_bytes(pickle.dumps(plan))
        return plan

    def _since(self) -> str:
        """Tells one earlier result from another.

        Raises:
          TfmmError: There is none, or nothing can be carried over from one like it.
        """
        since = self._settings.since
        if since is None:
            return ""
        manifest = read_manifest(since)
        if manifest.get("kind") != "shoppers" or self._settings.kind != "shoppers":
            raise TfmmError(
                f"--since: expected --shoppers and an earlier result of it, received {since}"
            )
        if not all(name.endswith(SUFFIX["parquet"]) for name in manifest["files"]):
            raise TfmmError(f"--since: expected an earlier result in Parquet, received {since}")
        return str(_read(since / _JOB).get("stamp"))

    def _carry_over(self, since: Path, spill: Path, parts: int) -> None:
        manifest = read_manifest(since)
        problem = why_not(manifest, self._told() | {"model": dict(self.takes.identity)})
        if problem:
            print(f"--since {since}: {problem}; all shoppers are scored", file=sys.stderr)
        else:
            lay_down(since, list(manifest["files"]), spill, parts=parts)

    def _told(self) -> dict[str, Any]:
        """What the answers to a row depend on, beside the model and the row."""
        asked = self._settings.asked
        k = self.takes.config.catalogue.default_k if asked.k is None else asked.k
        return {
            "asked": {"k": k, "filters": dict(asked.filters)},
            "exclude": sorted(self._settings.exclude),
            "columns": {field.name: str(field.type) for field in self.takes.schema},
        }

    def finish(self, staging: Staging, job: Job, plan: Plan, *, max_rejects: float) -> None:
        """Publishes the answers of all blocks with their rejects and the manifest.

        Raises:
          TfmmError: More of the input is bad than allowed; the work is kept.
        """
        folder = staging.path
        manifest = self._manifest(job, plan)
        with appearing(folder / _REJECTS) as path, path.open("w", encoding="utf-8") as file:
            spilled = folder / SPILL / _REJECTS
            if spilled.is_file():
                with spilled.open(encoding="utf-8") as bad:
                    shutil.copyfileobj(bad, file)
            for block in plan.blocks:
                file.writelines(f"{line}\n" for line in outcome_of(job, block).rejects)
        kept = staging.out.with_name(f"{staging.out.name}.rejects.jsonl")
        read, rejected = manifest["input"]["read"], manifest["input"]["rejected"]
        if rejected > max_rejects * read:
            shutil.copyfile(folder / _REJECTS, kept)
            raise TfmmError(
                f"{self._source}: expected at most {max_rejects:.1%} bad rows, found {rejected} of"
                f" {read}; all are in {kept}"
            )
        _write(folder / _MANIFEST, manifest)
        publish(staging)
        kept.unlink(missing_ok=True)

    def _manifest(self, job: Job, plan: Plan) -> dict[str, Any]:
        """What the result is, without a word of when and how fast."""
        total: Counter[str] = Counter()
        fields: Counter[str] = Counter(plan.facts.get("rejected_by_field", {}))
        files: dict[str, int] = {}
        for block in plan.blocks:
            outcome = outcome_of(job, block)
            files[job.part(block).name] = outcome.written
            total.update({name: getattr(outcome, name) for name in _COUNTED})
            fields.update(outcome.rejected_by_field)
        rows = {name: total[name] for name in _COUNTED}
        settings = self._settings
        return {
            "format": FORMAT,
            "tfmm": __version__,
            "kind": settings.kind,
            "model": dict(self.takes.identity),
            "source": self._source.name,
            "input": plan.facts.get("input", {"read": rows["read"], "rejected": rows["rejected"]}),
            "rows": rows,
            "rejected_by_field": dict(fields.most_common()),
            "left_out": list(plan.left_out),
            "as_of_us": plan.facts.get("as_of_us"),
            "files": files,
            **self._told(),
        }


def _stamp(source: Path, out: Path, options: object) -> str:
    """A digest of names, sizes and times of the input, and of what is to be done with it."""
    if source.is_dir():
        return source_stamp(source, leave_out=out, settings=options)
    status = source.stat()
    entry = [source.name, status.st_size, status.st_mtime_ns, options]
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()


def publish(staging: Staging) -> None:
    """Removes what only the work needed, and puts the folder in its place."""
    for name in (BLOCKS, SPILL):
        shutil.rmtree(staging.path / name, ignore_errors=True)
    (staging.path / _PLAN).unlink(missing_ok=True)
    staging.publish()


def is_whole(staging: Staging, stamp: str) -> bool:
    """Whether a killed run of this job had left nothing to do but to publish."""
    folder = staging.path
    return (folder / _MANIFEST).is_file() and _read(folder / _JOB).get("stamp") == stamp


def read_manifest(out: Path) -> dict[str, Any]:
    """The manifest of a finished job; empty where there is none."""
    manifest = _read(out / _MANIFEST)
    return manifest if manifest.get("kind") in SIGNATURE else {}


def check_out(source: Path, out: Path) -> None:
    """Refuses a folder whose replacement would destroy something else than an earlier result.

    Raises:
      TfmmError: It is or holds the input, is a file, or holds files of someone else.
    """
    check_target(source, out)
    if out.exists() and any(out.iterdir()) and not read_manifest(out):
        raise TfmmError(f"{out}: expected a new folder or an earlier result, found another one")


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _write(path: Path, content: Mapping[str, Any]) -> None:
    with appearing(path) as beside:
        text = json.dumps(content, indent=1, ensure_ascii=False)
        beside.write_text(text + "\n", encoding="utf-8")
