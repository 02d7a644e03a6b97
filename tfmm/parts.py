"""Parts of the catalogue, and rankings measured on the products of one part. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tfmm.exposure import GROUPS, popularity_groups
from tfmm.metrics import Graded

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Part:
    """Some of the products.

    Attributes:
      dimension: What divides the catalogue, such as "product".
      name: Name of the part in it, such as "cold".
      members: Which products belong to it, [N].
    """

    dimension: str
    name: str
    members: Mask


def catalogue_parts(counts: npt.NDArray[np.int64], has: Mapping[str, Mask]) -> tuple[Part, ...]:
    """Head, tail and cold products, and products with and without each modality.

    What does not divide the catalogue is left out.

    Args:
      counts: Training interactions of each product, [N].
      has: Whether each product has a modality, [N], by modality.
    """
    groups = popularity_groups(counts)
    parts = [Part("product", name, groups == at) for at, name in enumerate(GROUPS)]
    for modality, there in has.items():
        parts.append(Part(f"product {modality}", "with", there))
        parts.append(Part(f"product {modality}", "without", ~there))
    found = [part for part in parts if part.members.any()]
    dimensions = [part.dimension for part in found]
    return tuple(part for part in found if dimensions.count(part.dimension) > 1)


def restrict(
    graded: Graded,
    ranked: npt.NDArray[np.int64],
    judged: Sequence[Mapping[int, float]],
    members: Mask,
) -> Graded:
    """The same rankings where only products of a part may be relevant; the others keep their ranks.

    Args:
      graded: R graded rankings of depth K.
      ranked: Their products, [R, K]; -1 for none.
      judged: Grades of each ranking's query.
      members: Which products belong to the part, [N].
    """
    grades = np.where((ranked >= 0) & members[np.maximum(ranked, 0)], graded.grades, 0.0)
    ideal = np.zeros_like(graded.ideal)
    relevant = np.zeros_like(graded.relevant)
    for row, known in enumerate(judged):
        at = np.fromiter(known.keys(), np.int64, len(known))
        own = np.fromiter(known.values(), np.float64, len(known))[members[at]]
        best = np.sort(own)[::-1][: ideal.shape[1]]
        ideal[row, : len(best)] = best
        relevant[row] = (own > 0).sum()
    return Graded(grades, ideal, relevant)
