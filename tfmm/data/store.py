"""Preprocessed features of many rows, on disk, memory-mapped for training's random access."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[Any]]
ROW = "/row"
ROWS_AT_ONCE = 256


class FeatureStore:
    """Packed features of rows 0..N-1 of one side.

    Each feature of each modality is one array on disk that holds only the rows which have the
    modality; `slots[modality]` says where a row's entry is, -1 for nowhere. The operating system
    keeps hot pages in memory, so neither photos nor sounds need to fit.

    Attributes:
      rows: Number of rows.
      slots: Position of each row's entry, int32 [rows], by modality.
      arrays: Memory-mapped entries by feature name, such as "image/pixels" [entries, H, W, 3].
    """

    def __init__(self, folder: Path) -> None:
        index = json.loads((folder / "store.json").read_text(encoding="utf-8"))
        self.folder = folder
        self.rows: int = index["rows"]
        self.slots: dict[str, npt.NDArray[np.int32]] = {
            modality: np.fromfile(folder / f"{modality}.slots", dtype=np.int32)
            for modality in index["modalities"]
        }
        self.arrays: Arrays = {
            name: _open(folder / _file_name(name), entry["dtype"], tuple(entry["shape"]))
            for name, entry in index["arrays"].items()
        }

    @classmethod
    def write(
        cls,
        folder: Path,
        batches: Iterable[Mapping[str, npt.NDArray[Any]]],
        *,
        stamp: str,
        advance: Callable[[int], None] = lambda rows: None,
    ) -> FeatureStore:
        """Writes batches of packed features, as the Preprocessor returns them.

        Args:
          folder: Where the store goes; it appears whole or not at all.
          batches: Packed features; "row" says how many rows a batch has.
          stamp: Says what the store was made from; see `open_if_current`.
          advance: Called with the number of rows of each batch written.
        """
        staging = folder.with_name(f".{folder.name}.staging")
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        writer = _Writer(staging)
        with writer.files:
            for batch in batches:
                advance(writer.add(batch))
        writer.finish(stamp)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(staging, folder)
        return cls(folder)

    @classmethod
    def open_if_current(cls, folder: Path, stamp: str) -> FeatureStore | None:
        """The store in `folder`, or None where there is none made from `stamp`."""
        try:
            index = json.loads((folder / "store.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return cls(folder) if index["stamp"] == stamp else None

    def has(self, modality: str) -> npt.NDArray[np.bool_]:
        """Which rows have the modality, [rows]."""
        if modality not in self.slots:
            return np.zeros(self.rows, dtype=np.bool_)
        return self.slots[modality] >= 0

    def modalities(self) -> tuple[str, ...]:
        """Modalities that at least one row has."""
        return tuple(self.slots)

    def gather(self, modality: str, rows: npt.NDArray[np.int64]) -> Arrays:
        """Entries of rows, one feature a name; rows without the modality (or -1) give zeros."""
        slots = np.where(rows >= 0, self.slots[modality][rows], -1)
        present = slots >= 0
        gathered: Arrays = {}
        for name, array in self.arrays.items():
            if name.startswith(f"{modality}/"):
                values = np.zeros((len(rows), *array.shape[1:]), dtype=array.dtype)
                values[present] = array[slots[present]]
                gathered[name] = values
        return gathered

    def packed(self, rows: npt.NDArray[np.int64]) -> Arrays:
        """Packed features of rows as the towers take them; without padding."""
        features: Arrays = {"row": np.arange(len(rows), dtype=np.int32)}
        for modality in self.slots:
            where = np.flatnonzero(self.has(modality)[rows])
            features[modality + ROW] = where.astype(np.int32)
            features |= self.gather(modality, rows[where])
        return features


class _Writer:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.files = ExitStack()
        self._files: dict[str, Any] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._dtypes: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self._slots: dict[str, list[npt.NDArray[np.int32]]] = {}
        self._rows = 0

    def add(self, batch: Mapping[str, npt.NDArray[Any]]) -> int:
        rows = len(batch["row"])
        for name in batch:
            if name.endswith(ROW):
                self._place(name.removesuffix(ROW), batch[name], rows)
        for name, values in batch.items():
            if "/" in name and not name.endswith(ROW):
                self._append(name, values)
        self._rows += rows
        return rows

    def _place(self, modality: str, where: npt.NDArray[np.int32], rows: int) -> None:
        slots = np.full(rows, -1, dtype=np.int32)
        start = self._counts.get(modality, 0)
        slots[where] = np.arange(start, start + len(where), dtype=np.int32)
        self._counts[modality] = start + len(where)
        self._slots.setdefault(modality, []).append(slots)

    def _append(self, name: str, values: npt.NDArray[Any]) -> None:
        if name not in self._files:
            file = (self._folder / _file_name(name)).open("wb")
            self._files[name] = self.files.enter_context(file)
            self._shapes[name] = values.shape[1:]
            self._dtypes[name] = values.dtype.str
        values.tofile(self._files[name])

    def finish(self, stamp: str) -> None:
        present = [modality for modality, count in self._counts.items() if count]
        for modality in present:
            np.concatenate(self._slots[modality]).tofile(self._folder / f"{modality}.slots")
        arrays = {
            name: {"dtype": self._dtypes[name], "shape": [self._counts[modality], *shape]}
            for name, shape in self._shapes.items()
            if (modality := name.split("/")[0]) in present
        }
        index = {"stamp": stamp, "rows": self._rows, "modalities": present, "arrays": arrays}
        (self._folder / "store.json").write_text(json.dumps(index), encoding="utf-8")


def _file_name(name: str) -> str:
    return name.replace("/", ".") + ".bin"


def _open(path: Path, dtype: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    return np.memmap(path, dtype=np.dtype(dtype), mode="r", shape=shape)


def parts(rows: int) -> list[npt.NDArray[np.int64]]:
    """Rows 0..rows - 1 in parts of about `ROWS_AT_ONCE`, none larger."""
    return np.array_split(np.arange(rows), max(1, math.ceil(rows / ROWS_AT_ONCE)))
