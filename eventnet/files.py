"""Files written whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["write_files"]


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Write all files or none: complete temporary files first, synced to the disk, then renamed over the old ones.

    Raises:
        OSError: the disk is full, a folder is read-only or absent; what was there before is untouched.
    """
    written: dict[Path, Path] = {}
    try:
        for path, content in contents.items():
            written[path] = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            with open(written[path], "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for path, temporary in written.items():
            os.replace(temporary, path)
    except OSError:
        for temporary in written.values():
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        raise
