"""A folder written aside and renamed into place, by one process at a time."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from hashlib import sha256
from pathlib import Path
from types import TracebackType

from tfmm.errors import TfmmError


class Staging:
    """A context manager around the folder in which `out` is prepared.

    On entry, what a killed process left there is removed, and the former result that it had moved
    aside is put back; on exit, what this process did not publish is removed. With `keep` both stay,
    for work that is taken up again. The lock is on the folder itself, so that the kernel drops it
    with the process.

    Attributes:
      out: The folder to publish.
      path: The folder to write to, beside `out` and so in its file system.

    Raises:
      TfmmError: On entry, when another process is preparing `out`.
    """

    def __init__(self, out: Path, *, keep: bool = False) -> None:
        self.out = out
        self._keep = keep
        self.path = out.with_name(f".{out.name}.staging")
        self._old = out.with_name(f".{out.name}.old")
        self._lock = -1

    def __enter__(self) -> Staging:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while not self._locked():
            pass
        if not self._keep:
            self.clear()
        if self._old.exists() and not self.out.exists():
            os.rename(self._old, self.out)  # killed between the two renames of `publish`
        _remove(self._old)
        return self

    def _locked(self) -> bool:
        """Takes the lock; False if the folder was published or removed in the meantime."""
        self.path.mkdir(exist_ok=True)
        try:
            self._lock = os.open(self.path, os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(self._lock), self.path.stat()):
                return True
        except BlockingIOError:
            os.close(self._lock)
            raise TfmmError(
                f"{self.out}: expected to be the only one who writes it, found another process"
            ) from None
        except FileNotFoundError:
            pass
        os.close(self._lock)
        return False

    def clear(self) -> None:
        """Removes all that was written so far."""
        for entry in self.path.iterdir():
            _remove(entry)

    def publish(self) -> None:
        """Puts the folder in place of `out`; readers see the old one or the new one."""
        if self.out.exists():
            os.rename(self.out, self._old)
        os.rename(self.path, self.out)
        _remove(self._old)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._keep or (self.path.is_dir() and not any(self.path.iterdir())):
            _remove(self.path)
        os.close(self._lock)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def check_target(dataset: Path, out: Path) -> None:
    """Refuses an `out` whose replacement would destroy something else than a prepared dataset.

    Raises:
      TfmmError: `out` is or holds the dataset, is a file, or holds files of someone else.
    """
    if out == dataset or out in dataset.parents:
        raise TfmmError(f"{out}: expected a folder to write to, received the dataset's own")
    if not out.exists():
        return
    if not out.is_dir():
        raise TfmmError(f"{out}: expected a folder to write to, found a file")
    if any(out.iterdir()) and not (out / "manifest.json").is_file():
        raise TfmmError(f"{out}: expected a new or a prepared folder, found one with other files")


def source_stamp(dataset: Path, *, leave_out: Path, settings: object) -> str:
    """SHA-256 over names, sizes and modification times below a folder, and over settings.

    Args:
      dataset: The folder.
      leave_out: A folder that may lie below it and does not count, nor what is staged for it.
      settings: Plain values that the result depends on.
    """
    digest = sha256(json.dumps(settings, sort_keys=True).encode())
    hidden = {leave_out.name, f".{leave_out.name}.staging", f".{leave_out.name}.old"}
    for folder, folders, files in os.walk(dataset):
        if Path(folder) == leave_out.parent:
            folders[:] = [name for name in folders if name not in hidden]
        folders.sort()
        for name in sorted(files):
            path = Path(folder, name)
            status = path.stat() if path.exists() else path.lstat()
            entry = (str(path.relative_to(dataset)), status.st_size, status.st_mtime_ns)
            digest.update(json.dumps(entry).encode())
    return digest.hexdigest()
