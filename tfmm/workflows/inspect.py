"""`tfmm inspect`: what a published SavedModel is, and whether stock TensorFlow Serving loads it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tfmm import artifacts
from tfmm.errors import RequirementMissedError

_WIDTH = 100


def inspect(saved_model: Path, *, stock: bool = False) -> str:
    """Describes a SavedModel: manifest, signatures with inputs and defaults, op check.

    Args:
      saved_model: A version folder, or a model's folder (its newest version).
      stock: Whether a model that stock TensorFlow Serving 2.16 cannot load is an error.

    Returns:
      Text for people.

    Raises:
      RequirementMissedError: `stock` is set and the model needs ops that the server lacks.
      TfmmError: There is no SavedModel.
    """
    version = artifacts.latest_version(saved_model)
    missing = artifacts.missing_from_stock(version)
    if stock and missing:
        raise RequirementMissedError(
            f"{version}: expected only ops that stock TensorFlow Serving 2.16 has,"
            f" found {', '.join(missing)}"
        )
    console = Console(file=io.StringIO(), width=_WIDTH, highlight=False)
    console.print(f"{version}", style="bold")
    for key, value in _facts(artifacts.read_manifest(version)).items():
        console.print(f"  {key:<12}{value}", soft_wrap=True, markup=False)
    for name, signature in artifacts.signature_specs(version).items():
        console.print(_table(name, signature))
    loads = "has every op" if not missing else f"lacks {', '.join(missing)}"
    ops = len(artifacts.ops_of(version))
    console.print(f"{ops} ops; stock TensorFlow Serving 2.16 {loads}", soft_wrap=True)
    return console.file.getvalue().rstrip()  # type: ignore[attr-defined]


def _facts(manifest: dict[str, Any]) -> dict[str, str]:
    if not manifest:
        return {"manifest": "none: tfmm did not write this model"}
    index, versions = manifest["index"], manifest["versions"]
    measured = index.get("measured", {})
    recall = ", ".join(f"{k} {v}" for k, v in measured.items() if k.startswith("recall"))
    metrics = ", ".join(f"{k} {v:.4f}" for k, v in manifest.get("metrics", {}).items())
    return {
        "created": manifest["created"],
        "products": f"{index['products']} x {index['dim']}",
        "index": f"{index['kind']}{f' ({recall})' if recall else ''}",
        **_refreshed(manifest),
        "metrics": metrics or "none recorded",
        "trained on": manifest.get("data", {}).get("fingerprint", "unknown"),
        "catalogue": manifest["catalogue"]["fingerprint"],
        "made with": f"tfmm {versions['tfmm']}, tensorflow {versions['tensorflow']}",
    }


def _refreshed(manifest: dict[str, Any]) -> dict[str, str]:
    """What the last refresh did, if there was one."""
    if "refresh" not in manifest:
        return {}
    did, index = manifest["refresh"], manifest["index"]
    counts = ", ".join(f"{did[name]} {name}" for name in ("added", "changed", "removed"))
    beside = [f"{name} {index[name]}" for name in ("tail", "tombstones") if index.get(name)]
    return {"refreshed": "; ".join([f"from version {did['from_version']}: {counts}", *beside])}


def _table(name: str, specs: dict[str, artifacts.InputSpec]) -> Table:
    table = Table("input", "type", "shape", "default", title=name, title_justify="left")
    for key, spec in sorted(specs.items()):
        shape = ", ".join("B" if size is None else str(size) for size in spec.shape)
        default = "required" if spec.default is None else repr(spec.default.flat[0])
        table.add_row(key, spec.dtype.name, f"[{shape}]".replace("[", r"\["), default)
    return table
