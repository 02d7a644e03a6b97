"""Photos and sounds of rows: converted as `tfmm prepare` converts them, several at a time."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tfmm.config import PrepareConfig
from tfmm.errors import RecordError
from tfmm.scoring.rows import Row


class MediaLoader:
    """Loads what rows refer to.

    Args:
      folder: What paths are relative to.
      limits: How large photos and sounds may be.
    """

    def __init__(self, folder: Path, limits: PrepareConfig) -> None:
        self._folder, self._limits = folder, limits
        self._converter: Any = None

    def load(self, rows: Mapping[int, Row]) -> dict[int, RecordError]:
        """Converts in place; returns the reasons of the rows that cannot be, by place."""
        waiting = {place: names for place, row in rows.items() if (names := row.media())}
        if not waiting:
            return {}
        if self._converter is None:
            from tfmm.records.media import MediaConverter  # noqa: PLC0415 - its decoders load long

            self._converter = MediaConverter(self._folder, self._limits)

        def load(place: int) -> RecordError | None:
            held = rows[place].inputs
            try:
                for name in waiting[place]:
                    held[name] = self._converter.convert(held[name])
            except RecordError as error:
                return error
            return None

        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            outcomes = list(pool.map(load, waiting))
        return {n: error for n, error in zip(waiting, outcomes, strict=True) if error is not None}
