"""Walk a documents path in a fixed order and account for every file: loaded, or skipped with a reason."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rag.errors import BadInput
from rag.load.base import Skipped, Unreadable
from rag.load.registry import endings, loader_for
from rag.types import Document


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a documents path holds; every file or row found is in exactly one of the two lists."""

    documents: tuple[Document, ...]
    skipped: tuple[Skipped, ...]

    @property
    def found(self) -> int:
        """The number of files and rows met."""
        return len(self.documents) + len(self.skipped)


def load_documents(path: Path | str) -> Loaded:
    """Load a folder of files, one file, or a ``.jsonl`` of document rows, sorted by id.

    In a folder an unreadable file or row is skipped with its reason; a single file that was named on purpose
    must be readable as a whole. Raises BadInput when the path is missing, when the one file or a row of it is
    broken, or when nothing can be loaded.
    """
    path = Path(path)
    if not path.exists():
        raise BadInput(
            f"the documents path {path} does not exist", "give a folder, a file or a .jsonl of documents"
        )
    items = list(_folder(path) if path.is_dir() else _single(path))
    documents, skipped = _unique(items)
    if not documents:
        raise BadInput(
            f"{path} holds no document that can be loaded: {_why(skipped)}", f"loadable: {endings()}"
        )
    return Loaded(tuple(sorted(documents, key=lambda d: d.id)), tuple(sorted(skipped, key=lambda s: s.path)))


def _why(skipped: list[Skipped]) -> str:
    if not skipped:
        return "it is empty"
    first = f"{skipped[0].path}: {skipped[0].reason}"
    return first if len(skipped) == 1 else f"{first} (and {len(skipped) - 1} more)"


def _unique(items: Iterable[Document | Skipped]) -> tuple[list[Document], list[Skipped]]:
    documents: dict[str, Document] = {}
    skipped: list[Skipped] = []
    for item in items:
        if isinstance(item, Skipped):
            skipped.append(item)
        elif item.id in documents:
            skipped.append(Skipped(item.id, "another document has the same id"))
        else:
            documents[item.id] = item
    return list(documents.values()), skipped


def _single(path: Path) -> Iterator[Document | Skipped]:
    for item in _file(path, path.name):
        if isinstance(item, Skipped):
            raise BadInput(
                f"cannot load {path.parent / item.path}: {item.reason}", "mend it, or leave it out"
            )
        yield item


def _folder(root: Path) -> Iterator[Document | Skipped]:
    """Yield everything below a folder, names sorted, never following a link."""
    try:
        entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    except OSError as error:
        raise BadInput(f"cannot list the documents folder {root}: {error.strerror}") from error
    pending = [(entry, entry.name) for entry in reversed(entries)]
    while pending:
        entry, id = pending.pop()
        if reason := _unwanted(entry, root):
            yield Skipped(_printable(id), reason)
        elif entry.is_dir(follow_symlinks=False):
            try:
                inner = sorted(os.scandir(entry.path), key=lambda e: e.name, reverse=True)
                pending.extend((e, f"{id}/{e.name}") for e in inner)
            except OSError as error:
                yield Skipped(_printable(id), f"cannot be listed: {error.strerror}")
        else:
            yield from _file(Path(entry.path), id)


def _unwanted(entry: os.DirEntry[str], root: Path) -> str:
    if entry.name.startswith("."):
        return "hidden"
    if entry.is_symlink():
        target = Path(os.path.realpath(entry.path))
        inside = target.is_relative_to(root.resolve())
        return "a link to what is read under its own name" if inside else "a link that leaves the folder"
    mode = entry.stat(follow_symlinks=False).st_mode
    return "" if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else "not a regular file"


def _file(path: Path, id: str) -> Iterator[Document | Skipped]:
    shown = _printable(id)
    loader = loader_for(path.name)
    if shown != id:
        yield Skipped(shown, "its name is not UTF-8")
    elif loader is None:
        yield Skipped(id, f"no loader for {path.suffix or 'a name without ending'}")
    elif not path.is_file():
        yield Skipped(id, "not a regular file")
    else:
        try:
            yield from loader.read(id, path.read_bytes())
        except Unreadable as error:
            yield Skipped(id, str(error))
        except OSError as error:
            yield Skipped(id, f"cannot be read: {error.strerror}")


def _printable(id: str) -> str:
    return id.encode("utf-8", "backslashreplace").decode("utf-8")
