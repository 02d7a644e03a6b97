"""`tfmm refresh`: products come, change and go in a published model, without training or a run."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from tfmm import artifacts
from tfmm.embeddings import Embeddings, none_of, read_embeddings
from tfmm.errors import TfmmError
from tfmm.index.renewal import COMPACT_ABOVE, Moves, Renewed, renewed_index, stored_vectors
from tfmm.records.changes import Changes, read_changes
from tfmm.refreshing import (
    Embedded,
    check_version,
    embed_changes,
    rename_searcher,
    write_version,
)
from tfmm.turnover import (
    Former,
    Turnover,
    renewed_columns,
    renewed_ledger,
    renewed_popularity,
    turnover_of,
)

REJECTS = Path("assets.extra", "rejects.jsonl")
_ALWAYS = -1.0


@dataclass(frozen=True)
class Source:
    """Where changes come from, and what is done beside them.

    Attributes:
      products: A products table, or a folder with one; None for no changes.
      embeddings: A file of `tfmm embeddings` with vectors to take instead of running the tower.
      compact: Whether approximate indexes are built again.
      compact_above: Share of tail and tombstones above which ScaNN's is in any case.
    """

    products: Path | None = None
    embeddings: Path | None = None
    compact: bool = False
    compact_above: float = COMPACT_ABOVE


def refresh(saved_model: Path, source: Source, *, progress: bool = True) -> Path:
    """Publishes the next version of a model, with other products and the same towers.

    Args:
      saved_model: A version folder, or a model's folder (its newest version).
      source: What changes.
      progress: Whether progress is shown on stderr.

    Returns:
      The version folder; the former one where nothing has changed.

    Raises:
      TfmmError: The version or the changes cannot be used, or the new version does not answer as
        it should; nothing is published then.
    """
    if source.products is None and not source.compact:
        raise TfmmError("refresh: expected --products or --compact, received neither")
    console = Console(stderr=True, quiet=not progress, markup=False, highlight=False)
    version = artifacts.latest_version(saved_model)
    if version.name in ("", ".."):  # a path whose parent is not the model's folder
        version = version.resolve()
    newest = max(artifacts.versions(version.parent), default=None)
    laps = _Laps()
    former = Former(version)
    with tempfile.TemporaryDirectory(prefix="tfmm-refresh-") as folder:
        work = _Refresh(former, source, Path(folder), console=console, laps=laps)
        if not work.changes_anything():
            console.print(f"nothing has changed: {version} stays")
            return version
        with artifacts.staging(version.parent) as staged:
            work.write(staged)
            return artifacts.publish(staged, newest=newest)


class _Laps:
    """Seconds that each part took."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def end(self, part: str) -> None:
        """Says that a part is done."""
        now = time.perf_counter()
        self.seconds[part] = round(now - self._last, 2)
        self._last = now


class _Refresh:
    """One refresh: everything is computed first, and written then."""

    def __init__(
        self, former: Former, source: Source, folder: Path, *, console: Console, laps: _Laps
    ) -> None:
        self._former, self._source, self._console = former, source, console
        self._laps = laps
        self._saved = former.index()
        dim = int(self._saved["vectors"].shape[1])
        embeddings = none_of(dim)
        if source.embeddings is not None:
            embeddings = read_embeddings(source.embeddings, tower=former.tower, dim=dim)
        self._changes = self._read(folder, embeddings)
        self._turnover = turnover_of(former, self._changes)
        laps.end("read")
        self._new = _vectors(former, self._changes, self._turnover, embeddings)
        laps.end("embed")
        self._columns: dict[str, Any] = {}
        if self._changes is not None:
            self._columns = renewed_columns(former, self._changes, self._turnover)

    def changes_anything(self) -> bool:
        """Whether the new version would differ from the former one."""
        moved = self._new.moves.changes_index() or bool(self._columns)
        return moved or self._is_compacted()

    def write(self, staged: Path) -> None:
        """Writes the new version and compares its answers."""
        former, turnover = self._former, self._turnover
        ids = turnover.ids(former.ids)
        popularity, tensors = former.ledger.popularity, dict(self._columns)
        if turnover.moves_products:
            popularity, more = renewed_popularity(former, turnover)
            tensors |= more
        made = self._index()
        tensors |= {f"index/{name}": value for name, value in made.tensors.items()}
        ledger = renewed_ledger(
            former, turnover, popularity=popularity, fingerprints=self._new.fingerprints
        )
        self._laps.end("index")
        self._console.print(f"writing {len(ids)} products")
        write_version(former, staged, tensors=tensors, ids=ids, ledger=ledger)
        if made.searcher:
            rename_searcher(staged, former.manifest["index"]["fingerprint"], made.searcher)
        self._laps.end("write")
        self._console.print("comparing its answers with exact ones")
        config = former.config
        measured = check_version(
            staged,
            ids=ids,
            vectors=stored_vectors(self._saved | made.tensors),
            renewed=self._new.moves.renewed,
            is_exact=former.manifest["index"]["kind"] == "exact",
            most=config.catalogue.max_k,
        )
        self._laps.end("compare")
        artifacts.write_manifest(staged, self._manifest(made, len(ids), measured))
        (staged / REJECTS).unlink(missing_ok=True)
        if self._changes is not None and self._changes.rejected:
            shutil.copyfile(self._changes.rejects, staged / REJECTS)

    def _is_compacted(self) -> bool:
        """Whether the index is to be built again; an exact one has nothing to build."""
        return self._source.compact and self._former.manifest["index"]["kind"] != "exact"

    def _read(self, folder: Path, embeddings: Embeddings) -> Changes | None:
        source = self._source.products
        if source is None:
            return None
        changes = read_changes(
            source,
            folder,
            config=self._former.config,
            expected=self._former.expected(embeddings),
            console=self._console,
        )
        if not changes.ids:
            raise TfmmError(
                f"{changes.name}: expected at least one product to add, change or remove, found"
                f" {f'{changes.rejected} bad rows' if changes.rejected else 'none'}"
            )
        return changes

    def _index(self) -> Renewed:
        moves = self._new.moves
        if not moves.changes_index() and not self._is_compacted():
            return Renewed({}, {})
        return renewed_index(
            self._saved,
            moves,
            config=self._former.config.index,
            facts=self._former.manifest["index"],
            compact_above=_ALWAYS if self._is_compacted() else self._source.compact_above,
        )

    def _manifest(self, made: Renewed, products: int, measured: dict[str, Any]) -> dict[str, Any]:
        former, changes = self._former.manifest, self._changes
        catalogue = dict(former["catalogue"])
        if changes is not None:
            both = f"{catalogue['fingerprint']} {changes.prepared.manifest['fingerprint']}"
            catalogue["fingerprint"] = hashlib.sha256(both.encode()).hexdigest()
        known = int((~self._turnover.is_new).sum())
        did = {
            "from_version": self._former.version.name,
            "changes": changes.name if changes is not None else None,
            "added": len(self._turnover.added),
            "changed": known,
            "removed": self._turnover.size - len(self._turnover.kept),
            "rejected": changes.rejected if changes is not None else 0,
            "embedded": self._new.embedded,
            "embeddings_taken": self._new.taken,
            "compacted": self._is_compacted() or bool(made.searcher),
            "compared": measured,
            "seconds": self._laps.seconds,
        }
        return former | {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "catalogue": catalogue | {"products": products},
            "index": former["index"] | made.facts,
            "refresh": did,
        }


@dataclass(frozen=True)
class _New:
    """What is new to the index.

    Attributes:
      moves: Products and their vectors.
      fingerprints: Of content, by the product's place now.
      embedded: Vectors that the tower made; `taken`, those that came from a file.
    """

    moves: Moves
    fingerprints: dict[int, np.uint64] = field(default_factory=dict)
    embedded: int = 0
    taken: int = 0


def _vectors(
    former: Former, changes: Changes | None, turnover: Turnover, embeddings: Embeddings
) -> _New:
    """Vectors of products that are new or have new content."""
    none = np.zeros(0, np.int64)
    if changes is None:
        return _New(turnover.moves(none, embeddings.vectors[:0]))
    there = np.array([product in embeddings for product in changes.ids], np.bool_)
    there &= ~changes.removed
    made = Embedded(none, embeddings.vectors[:0], {})
    dim = embeddings.vectors.shape[1]
    if former.expected(embeddings).has_content(changes.name, changes.columns):
        made = embed_changes(former, changes, turnover, taken=there, dim=dim)
    taken = np.flatnonzero(there)
    vectors = np.concatenate([made.vectors, embeddings.of([changes.ids[row] for row in taken])])
    places = np.full(len(changes.ids), -1, np.int64)
    places[turnover.rows] = turnover.places
    return _New(
        turnover.moves(places[np.concatenate([made.rows, taken])], vectors),
        {int(places[row]): one for row, one in made.fingerprints.items()},
        len(made.rows),
        len(taken),
    )
