"""A catalogue before and after a table of changes, and what its variables become by it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfmm import artifacts
from tfmm.bundle import Bundle, escaped
from tfmm.catalogue import (
    STOCK,
    Columns,
    columns_of,
    read_some,
    returned_values,
    tower_columns,
)
from tfmm.config import Config, config_from_dict
from tfmm.contract import PRODUCT_IDS_FILE
from tfmm.embeddings import Embeddings
from tfmm.errors import TfmmError
from tfmm.index.popular import ranked
from tfmm.index.renewal import Moves
from tfmm.index.rules import codes_of
from tfmm.ledger import Ledger, logged_counts, read_ledger
from tfmm.records.changes import Changes, Expected

IDS = Path("assets", PRODUCT_IDS_FILE)
_INDEX = "index/"
Tensors = dict[str, Any]
Ints = npt.NDArray[np.int64]


class Former:
    """A published version that is to be refreshed.

    Attributes:
      version: Its folder.
      manifest: Its manifest.
      config: Its recipe.
      bundle: Its variables.
      ledger: What it keeps of its products.
      ids: Product ids, in order; `places` has their positions.

    Raises:
      TfmmError: tfmm did not export it, or did before versions could be refreshed.
    """

    def __init__(self, version: Path) -> None:
        self.version = version
        self.manifest = artifacts.read_manifest(version)
        if not {"config", "index", "tower_fingerprint"} <= set(self.manifest):
            raise TfmmError(f"{version}: expected a version that tfmm exported, found another")
        self.ledger = read_ledger(version)
        self.config: Config = config_from_dict(self.manifest["config"], where=str(version))
        self.bundle = Bundle(version)
        text = (version / IDS).read_text(encoding="utf-8")
        self.ids = text.removesuffix("\n").split("\n")
        self.places = {product: place for place, product in enumerate(self.ids)}

    @property
    def tower(self) -> str:
        """The fingerprint of its towers."""
        return str(self.manifest["tower_fingerprint"])

    def index(self) -> dict[str, npt.NDArray[Any]]:
        """The variables of its index, by their names there."""
        names = [name for name in self.bundle.names() if name.startswith(_INDEX)]
        return {name.removeprefix(_INDEX): self.bundle.array(name) for name in names}

    def expected(self, embedded: Embeddings) -> Expected:
        """What it expects of a table of changes; whose vector is there may be new without more."""
        further = {name: f"columns/{escaped(name)}" for name in self.config.catalogue.returned}
        there = set(self.bundle.names())
        return Expected(
            ids=self.places,
            embedded=embedded,
            content=tower_columns(self.config),
            declared={
                name: "text" if self.bundle.is_text(variable) else "float"
                for name, variable in further.items()
                if variable in there
            },
        )


@dataclass(frozen=True)
class Turnover:
    """Where products are now.

    Attributes:
      size: How many there were.
      kept: Those that stay, int [K], rising; they are 0..K-1 now.
      added: Ids of those that come after them.
      rows: Rows of the table of changes that speak of products there are now, int [C].
      places: Where those products are now, int [C].
    """

    size: int
    kept: Ints
    added: Sequence[str]
    rows: Ints
    places: Ints

    @property
    def is_new(self) -> npt.NDArray[np.bool_]:
        """Which of the rows are of added products, bool [C]."""
        return self.places >= len(self.kept)

    @property
    def moves_products(self) -> bool:
        """Whether there are others now."""
        return len(self.added) > 0 or len(self.kept) < self.size

    def moves(self, renewed: Ints, vectors: npt.NDArray[np.float32]) -> Moves:
        """The same for an index, with new vectors [R, D] of products [R] in any order."""
        order = np.argsort(renewed, kind="stable")
        return Moves(self.kept, len(self.added), renewed[order], vectors[order])

    def ids(self, former: Sequence[str]) -> list[str]:
        """Product ids now."""
        return [*(former[place] for place in self.kept), *self.added]


def turnover_of(former: Former, changes: Changes | None) -> Turnover:
    """Applies a table of changes to a catalogue's ids.

    Raises:
      TfmmError: No product would be left.
    """
    size = len(former.ids)
    if changes is None:
        none = np.zeros(0, np.int64)
        return Turnover(size, np.arange(size), [], none, none)
    before = np.array([former.places.get(product, -1) for product in changes.ids], np.int64)
    stays = np.ones(size, np.bool_)
    stays[before[changes.removed]] = False
    kept, rows = np.flatnonzero(stays), np.flatnonzero(~changes.removed)
    is_new = before[rows] < 0
    added = [changes.ids[row] for row in rows[is_new]]
    if not len(kept) and not added:
        raise TfmmError(f"{changes.name}: expected a product to be left, all {size} are removed")
    places = (np.cumsum(stays) - 1)[before[rows]]
    places[is_new] = len(kept) + np.arange(len(added))
    return Turnover(size, kept, added, rows, places)


def renewed_columns(former: Former, changes: Changes, turnover: Turnover) -> Tensors:
    """Variables of columns and rules that are others now."""
    given = read_some(changes.prepared, _there(former.config, changes))
    made: Tensors = {}
    for name, column, convert in _variables(former.config):
        if column not in changes.columns and not turnover.moves_products:
            continue
        before = former.bundle.array(name)
        values = convert(_values(given, column, before, len(changes.ids)))[turnover.rows]
        now = np.empty(len(turnover.kept) + len(turnover.added), before.dtype)
        now[: len(turnover.kept)] = before[turnover.kept]
        written = turnover.is_new | (column in changes.columns)
        now[turnover.places[written]] = values[written]
        if not _same(before, now):
            made[name] = now
    return made


def renewed_popularity(
    former: Former, turnover: Turnover
) -> tuple[npt.NDArray[np.float32], Tensors]:
    """What products count in the log now, [N], and the variables that hold it."""
    counts = logged_counts(former.version, turnover.added)
    popularity = np.concatenate([former.ledger.popularity[turnover.kept], counts])
    order, share = ranked(popularity)
    return popularity, {"popular/order": order, "popular/share": share}


def renewed_ledger(
    former: Former,
    turnover: Turnover,
    *,
    popularity: npt.NDArray[np.float32],
    fingerprints: Mapping[int, np.uint64],
) -> Ledger:
    """A ledger with new fingerprints of some products, by their place now."""
    made = np.zeros(len(popularity), np.uint64)
    made[: len(turnover.kept)] = former.ledger.fingerprints[turnover.kept]
    made[list(fingerprints)] = list(fingerprints.values())
    return Ledger(made, popularity)


def _there(config: Config, changes: Changes) -> list[str]:
    schema = changes.prepared.schema("products")
    return [name for name in columns_of(config) if name in schema]


def _variables(
    config: Config,
) -> list[tuple[str, str, Callable[[npt.NDArray[Any]], npt.NDArray[Any]]]]:
    """Name, column, and what is kept of its values, of every variable that holds a column."""
    catalogue = config.catalogue
    returned = dict.fromkeys(["product_id", *catalogue.returned])
    return [
        *((f"columns/{escaped(name)}", name, returned_values) for name in returned),
        ("rules/stock", STOCK, lambda values: np.asarray(values) > 0),
        *(
            (f"rules/numbers/{n}", name, lambda values: np.asarray(values, np.float32))
            for n, name in enumerate(catalogue.ranges)
        ),
        *((f"rules/codes/{n}", name, codes_of) for n, name in enumerate(catalogue.facets)),
    ]


def _values(given: Columns, column: str, before: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
    """A column of the table of changes, or that of products which say nothing of it."""
    if column in given:
        return given[column]
    is_text = before.dtype.kind == "O" or before.dtype == np.int64
    blank: list[Any] = [b"" if is_text else np.nan] * count
    return np.array(blank, object if is_text else np.float32)


def _same(before: npt.NDArray[Any], now: npt.NDArray[Any]) -> bool:
    return np.array_equal(before, now, equal_nan=before.dtype.kind == "f")
