"""From a published version to the next: products embedded, files written, answers checked.

Neither a run nor a tower's code is needed: what embeds a product is the version's own signature, in
a session as the model server has it.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tensorflow.core.protobuf import saved_model_pb2

from tfmm import artifacts
from tfmm._quiet import no_advice
from tfmm.catalogue import content_fingerprints, product_inputs
from tfmm.contract import PRODUCT_IDS_FILE
from tfmm.deployment import renew_requests
from tfmm.errors import TfmmError, sentence_of
from tfmm.ledger import Ledger
from tfmm.records.changes import Changes
from tfmm.serving.options import ServerOptions
from tfmm.serving.servable import Prepared
from tfmm.serving.session import Run, Session
from tfmm.serving.status import ServingError
from tfmm.turnover import IDS, Former, Turnover

EMBED_BATCH = 256
_PROBED, _PROBED_NEW, _HITS = 12, 4, 10
_TOLERANCE = 1e-4
# An index that finds less than this of the best hits is none.
_LEAST_RECALL = 0.5
Floats = npt.NDArray[np.float32]
Arrays = dict[str, npt.NDArray[Any]]


class Asked:
    """A version in a session, asked by signature."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __call__(self, signature: str, given: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Outputs by name; inputs that are not given have their defaults.

        Raises:
          TfmmError: The version refuses them.
        """
        read = Prepared.of(self._session.signatures[signature])
        values = {**read.defaults, **{name: v for name, v in given.items() if name in read.inputs}}
        feeds = {read.inputs[name]: value for name, value in values.items()}
        try:
            arrays = self._session.run(Run(feeds, list(read.outputs.values())))
        except ServingError as error:
            raise TfmmError(sentence_of(error.message)) from error
        return dict(zip(read.outputs, arrays, strict=True))


@contextlib.contextmanager
def opened(version: Path) -> Iterator[Asked]:
    """A version, loaded until the block ends.

    Raises:
      TfmmError: It cannot be loaded.
    """
    try:
        with no_advice():
            session = Session(version, ServerOptions(), is_plain=True)
    except ServingError as error:
        raise TfmmError(f"{version}: expected a version that loads, found: {error}") from error
    try:
        yield Asked(session)
    finally:
        session.close()


@dataclass(frozen=True)
class Embedded:
    """Products with new content.

    Attributes:
      rows: Their rows of the table of changes, int [E].
      vectors: Those of the tower, float32 [E, D].
      fingerprints: Of all the content that was read, by row.
    """

    rows: npt.NDArray[np.int64]
    vectors: Floats
    fingerprints: Mapping[int, np.uint64]


def embed_changes(
    former: Former, changes: Changes, turnover: Turnover, *, taken: npt.NDArray[np.bool_], dim: int
) -> Embedded:
    """Embeds what a table of changes says of content that the version does not hold yet.

    Args:
      former: The version, whose tower is loaded if there is anything to embed.
      changes: The table; it has the columns that the tower reads.
      turnover: Where its products are.
      taken: Rows whose vectors come from elsewhere, bool [C].
      dim: Numbers D of a vector.
    """
    places = dict(zip(turnover.rows.tolist(), turnover.places.tolist(), strict=True))
    rows: list[int] = []
    fingerprints: dict[int, np.uint64] = {}
    vectors = [np.zeros((0, dim), np.float32)]
    with contextlib.ExitStack() as stack:
        ask: Asked | None = None
        start = 0
        for raw in _batches(former, changes):
            count = len(raw["product_id"])
            read = dict(zip(range(start, start + count), content_fingerprints(raw), strict=True))
            fingerprints |= {row: one for row, one in read.items() if row in places}
            wanted = [
                row
                for row, one in read.items()
                if row in places and not taken[row] and _is_new(former, turnover, places[row], one)
            ]
            if wanted:
                ask = ask or stack.enter_context(opened(former.version))
                part = {name: value[np.array(wanted) - start] for name, value in raw.items()}
                vectors.append(ask("embed_product", part)["embedding"])
                rows += wanted
            start += count
    return Embedded(np.array(rows, np.int64), np.concatenate(vectors), fingerprints)


def _batches(former: Former, changes: Changes) -> Iterator[Arrays]:
    dataset = product_inputs(former.config, changes.prepared).batch(EMBED_BATCH)
    yield from dataset.as_numpy_iterator()


def _is_new(former: Former, turnover: Turnover, place: int, fingerprint: np.uint64) -> bool:
    """Whether a product's content is another than its vector was made of."""
    if place >= len(turnover.kept):
        return True
    return bool(former.ledger.fingerprints[turnover.kept[place]] != fingerprint)


def write_version(
    former: Former, staged: Path, *, tensors: Mapping[str, Any], ids: Sequence[str], ledger: Ledger
) -> None:
    """Writes a version beside its manifest: the former graph, other variables and assets."""
    # The fingerprint is of the former checkpoint; loaders do without.
    left_out = shutil.ignore_patterns("variables", "fingerprint.pb", PRODUCT_IDS_FILE)
    shutil.copytree(former.version, staged, ignore=left_out, dirs_exist_ok=True)
    former.bundle.write(staged, tensors)
    (staged / IDS).write_text("".join(f"{one}\n" for one in ids), encoding="utf-8")
    ledger.write(staged)
    if (former.version / artifacts.WARMUP_REQUESTS).is_file():
        renew_requests(former.version, staged, ids)


def rename_searcher(version: Path, former: str, name: str) -> None:
    """Gives a version's ScaNN searcher another name, so that no process takes it for the former."""
    path = version / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for meta in saved.meta_graphs:
        graph = meta.graph_def
        nodes = [*graph.node, *(n for one in graph.library.function for n in one.node_def)]
        for node in nodes:
            # Asking a map of attributes for one that is not there puts it there.
            if "shared_name" in node.attr and node.attr["shared_name"].s == former.encode():
                node.attr["shared_name"].s = name.encode()
    path.write_bytes(saved.SerializeToString())


def check_version(
    version: Path,
    *,
    ids: Sequence[str],
    vectors: Floats,
    renewed: npt.NDArray[np.int64],
    is_exact: bool,
    most: int,
) -> dict[str, float]:
    """Asks a version for what is similar to some products, and compares with NumPy.

    Args:
      version: Its folder.
      ids: Its products.
      vectors: What its index holds of them, float32 [N, D].
      renewed: Products that are new to it, of which some are asked for.
      is_exact: Whether it has to find the very best.
      most: Hits that it gives at most.

    Returns:
      Recall of the best hits.

    Raises:
      TfmmError: It does not load, or answers otherwise.
    """
    spread = np.linspace(0, len(ids) - 1, min(_PROBED, len(ids))).astype(np.int64)
    probes = np.unique(np.concatenate([spread, renewed[:_PROBED_NEW], renewed[-_PROBED_NEW:]]))
    k = min(_HITS, most)
    asked = np.array([ids[probe].encode() for probe in probes], object)
    with opened(version) as ask:
        answer = ask("similar", {"product_id": asked, "k": np.full(len(probes), k, np.int32)})
    hits = {hit.decode() for hit in answer["product_id"].ravel().tolist()}
    places = {one.encode(): place for place, one in enumerate(ids) if one in hits}
    recalls = []
    for row, probe in enumerate(probes):
        true = vectors @ vectors[probe]
        true[probe] = -np.inf
        best = _largest(true, min(k, len(ids) - 1))
        found = [hit for hit in answer["product_id"][row] if hit]
        scores = answer["score"][row][: len(found)]
        expected = np.array([true[places[hit]] if hit in places else np.nan for hit in found])
        if len(found) != len(best) or not np.allclose(scores, expected, rtol=0, atol=_TOLERANCE):
            raise TfmmError(f"refresh: the new version answers otherwise for {ids[probe]!r}")
        reached = scores >= best - _TOLERANCE if is_exact else scores >= best[-1:] - _TOLERANCE
        recalls.append(float(reached.mean()) if len(best) else 1.0)
    recall = float(np.mean(recalls))
    if recall < (1.0 if is_exact else _LEAST_RECALL):
        raise TfmmError(f"refresh: the new version finds {recall:.2f} of the most similar products")
    return {f"recall@{k}": round(recall, 4), "queries": len(probes)}


def _largest(scores: Floats, count: int) -> Floats:
    """The highest scores, falling; sorting all of a million would take longer than the product."""
    first = (
        np.partition(scores, len(scores) - count)[len(scores) - count :] if count else scores[:0]
    )
    return np.sort(first)[::-1]
