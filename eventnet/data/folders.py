"""Where recordings lie: the folder the user names, archives unpacked beside it, the cache."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

__all__ = ["cache_folder", "child_folders", "data_root", "fingerprint", "find_file", "simplified", "unpacked"]

ROOT_VARIABLE = "EVENTNET_DATA"
CACHE_VARIABLE = "EVENTNET_CACHE"


def data_root(root: str | os.PathLike[str] | None, name: str) -> Path:
    """The folder to look in: ``root``, or the environment variable ``EVENTNET_DATA`` if it is not given."""
    given = root if root is not None else os.environ.get(ROOT_VARIABLE)
    if not given:
        raise FileNotFoundError(
            f"{name}: needs its recordings; pass root=<folder that holds them> or set the environment "
            f"variable {ROOT_VARIABLE}"
        )
    folder = Path(given).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"{name}: expected a folder with its recordings, but {str(folder)!r} is not a folder")
    return folder


def simplified(name: str) -> str:
    """Lower-case letters and digits only, so that ``N-MNIST``, ``nmnist`` and ``n_mnist`` are one name."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def child_folders(root: Path, names: Iterable[str], holds: Callable[[Path], bool]) -> list[Path]:
    """Folders below ``root`` that are called like one of ``names`` and hold the files; better matches win.

    ``poker_dvs`` is called like ``pokerdvs``. Only if there is none of exactly that name, folders whose names
    go on after it (``nmnist_1k``) count.
    """
    wanted = [simplified(name) for name in names]
    children = sorted(child for child in root.iterdir() if child.is_dir())
    exact = [child for child in children if simplified(child.name) in wanted and holds(child)]
    if exact:
        return exact
    return [child for child in children if simplified(child.name).startswith(tuple(wanted)) and holds(child)]


def find_file(root: Path, folders: Iterable[str], names: Iterable[str]) -> Path | None:
    """The first ``root/folder/name`` that is there (``folders`` before ``names``), or ``None``."""
    names = list(names)
    candidates = (root / folder / name for folder in folders for name in names)
    return next((path for path in candidates if path.exists()), None)


def cache_folder(given: str | os.PathLike[str] | None = None) -> Path:
    """``given``, else ``$EVENTNET_CACHE``, else ``eventnet`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    if given is None:
        given = os.environ.get(CACHE_VARIABLE)
    if given is None:
        given = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "eventnet"
    return Path(given).expanduser()


def fingerprint(files: Iterable[Path], relative_to: Path, *details: object) -> str:
    """16 hex digits that change when a file is added, removed or rewritten, or when a detail differs."""
    listing = []
    for path in files:
        status = path.stat()
        listing.append((str(path.relative_to(relative_to)), status.st_size, status.st_mtime_ns))
    text = json.dumps([listing, [str(detail) for detail in details]])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def unpacked(archives: Sequence[Path], cache: Path) -> Path:
    """Folder in the cache with the content of ``.zip``, ``.tar.gz`` or ``.gz`` files, unpacked only once.

    It appears whole or not at all.
    The folder of the archives is never written to: it may be read-only.
    """
    mark = fingerprint(archives, archives[0].parent)
    target = cache / "unpacked" / f"{archives[0].name.split('.')[0]}-{mark}"
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        content = Path(scratch) / "content"
        content.mkdir()
        for archive in archives:
            try:
                _unpack(archive, content)
            except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, OSError) as error:
                raise ValueError(
                    f"{archive}: cannot be unpacked into {cache} ({type(error).__name__}: {error}); if the "
                    "file is truncated or of another kind, get it again"
                ) from error
        try:
            os.replace(content, target)
        except OSError:
            if not target.is_dir():  # otherwise another process was faster: its copy is as good
                raise
    return target


def _unpack(archive: Path, into: Path) -> None:
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as file:
            file.extractall(into)
    elif archive.name.endswith((".tar.gz", ".tgz", ".tar")):
        with tarfile.open(archive) as file:
            file.extractall(into, filter="data")
    else:
        with gzip.open(archive) as source, open(into / archive.stem, "wb") as copy:
            shutil.copyfileobj(source, copy)
