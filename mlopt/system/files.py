"""Writing that survives a crash: a file or a directory is replaced as a whole or not at
all. And errors of the disk as errors of ours."""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path

from mlopt.artifact import files_of
from mlopt.errors import UsageError


def fsync_path(path: Path) -> None:
    """Flush a file or a directory to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: Path, data: bytes) -> None:
    """Replace a file by its new content, or leave the old one."""
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        fsync_path(path.parent)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def publish_file(source: Path, target: Path) -> None:
    """Copy a file under its final name, or leave what was there."""
    temporary = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    try:
        shutil.copyfile(source, temporary)
        fsync_path(temporary)
        os.replace(temporary, target)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def publish_dir(source: Path, target: Path) -> None:
    """Copy a directory under its final name; an older one is swapped out only when the
    new one is complete."""
    temporary = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    old = target.with_name(f".{target.name}.old-{os.getpid()}")
    try:
        shutil.copytree(source, temporary)
        for path in files_of(temporary):
            fsync_path(path)
        if target.exists():
            os.replace(target, old)
        os.replace(temporary, target)
        fsync_path(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DISK = _FULL | {errno.EROFS, errno.EACCES}
_MESSAGES = {
    "No space left on device": errno.ENOSPC,
    "File too large": errno.EFBIG,
    "Read-only file system": errno.EROFS,
}
_MESSAGES["PytorchStreamWriter failed writing"] = errno.ENOSPC  # torch keeps the reason to itself


def disk_errno(error: BaseException | None) -> int | None:
    """The errno of a disk that is full or cannot be written, anywhere in the chain of
    causes; None when it was something else. Libraries wrap it in errors of their own.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in _DISK:
            return error.errno
        text = str(error)
        found = re.search(r"os error (\d+)", text)
        number = (
            int(found.group(1))
            if found
            else next((number for words, number in _MESSAGES.items() if words in text), None)
        )
        if number in _DISK:
            return number
        error = error.__cause__
    return None


def explain_os_error(error: OSError, path: Path) -> UsageError:
    """Our error for a disk that is full, read-only or missing. `path`: what was
    written. Nothing that was published is lost."""
    if error.errno in _FULL:
        return UsageError(
            f"no space left while writing below {path}",
            "free some space, or choose another -o; finished passes are kept",
        )
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return UsageError(f"{path} cannot be written: {error.strerror}", "choose another -o")
    return UsageError(f"{path}: {error.strerror or error}", "choose another -o")
