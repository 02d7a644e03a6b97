"""Which versions of a model its folder holds, and which of them its policy wants."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from tfmm.serving.status import Code, ServingError, invalid

_LOG = logging.getLogger(__name__)
_NUMBER = re.compile(r"[+-]?[0-9]{1,19}")
_INT64 = range(-(2**63), 2**63)


def versions_on_disk(base_path: Path) -> dict[int, Path]:
    """Version folders by number, rising: `00000123` is 123, and other names are no versions.

    Raises:
      ServingError: There is no such folder, or it cannot be read.
    """
    try:
        names = sorted(path.name for path in base_path.iterdir())
    except (OSError, ValueError) as error:
        # A path with a NUL byte is a ValueError.
        what = error.strerror if isinstance(error, OSError) else error
        raise invalid(f"Could not find base path {base_path}: {what}") from error
    found = {int(name): base_path / name for name in names if _NUMBER.fullmatch(name)}
    return {number: found[number] for number in sorted(found) if number in _INT64}


def wanted_versions(name: str, base_path: Path, policy: Any) -> dict[int, Path]:
    """The versions that a model should serve.

    Args:
      name: The model, for the log.
      base_path: The folder of its versions.
      policy: A ServableVersionPolicy: `latest` (the default, of one version), `all`, `specific`.

    Raises:
      ServingError: There is no such folder.
    """
    found = versions_on_disk(base_path)
    if not found:
        _LOG.warning(
            "No versions of servable %s found under base path %s. Did you forget to name your leaf "
            "directory as a number (eg. '/1/')?", name, base_path,
        )  # fmt: skip
    match policy.WhichOneof("policy_choice"):
        case "all":
            return found
        case "specific":
            for number in sorted(set(policy.specific.versions) - set(found)):
                _LOG.warning(
                    "Version %d of servable %s, which was requested to be served as a 'specific' "
                    "version in the servable's version policy, was not found in the file system",
                    number, name,
                )  # fmt: skip
            return {n: path for n, path in found.items() if n in policy.specific.versions}
        case _:
            count = max(policy.latest.num_versions, 1)
            return dict(list(found.items())[-count:])


def require_versions(name: str, base_path: Path) -> None:
    """Checks that a folder holds a version.

    Raises:
      ServingError: It holds none.
    """
    if not versions_on_disk(base_path):
        raise ServingError(
            Code.NOT_FOUND,
            f"Unable to find a numerical version path for servable {name} at: {base_path}",
        )
