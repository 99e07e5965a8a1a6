"""From the gold documents that questions name to the ids of the documents, where the two are written differently.

:func:`match_documents` finds, for each name, the one document that it can mean; :func:`require_match` refuses names of
which none is a document, and says how the others were understood.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rag.errors import BadInput
from rag.loading.base import printable

NAMES_SHOWN = 3
"""Names and ids that a message gives as examples."""
_ENDING = re.compile(r"\.[A-Za-z][A-Za-z0-9]{0,4}$")
"""The ending of a file name: letters and digits after the last dot, so that the 2 of "v1.2" is none."""


@dataclass(frozen=True, slots=True)
class DocumentMatch:
    """Which document each name means.

    Attributes:
        ids: the document's id by name; a name without a document is missing.
        unmatched: the names that are no document, and those that could be several.
        documents: some ids of documents, for messages.
    """

    ids: Mapping[str, str]
    unmatched: tuple[str, ...]
    documents: tuple[str, ...]

    @property
    def renamed(self) -> dict[str, str]:
        """The matches whose id is not the name."""
        return {name: id for name, id in self.ids.items() if id != name}

    def lines(self, path: Path) -> list[str]:
        """Return what a user must know: how names were understood, and which are no document; [] for nothing.

        Args:
            path: the file of the questions.
        """
        total = len(self.ids) + len(self.unmatched)
        lines = []
        if renamed := self.renamed:
            name, id = next(iter(renamed.items()))
            how = "; ".join(f"{count} match {text}" for text, count in _changes(renamed).most_common())
            lines.append(
                f"{path}: {len(renamed)} of {total} doc_ids are written differently in the documents: {how} "
                f"({name} is {id})"
            )
        if self.unmatched:
            lines.append(
                f"{path}: {len(self.unmatched)} of {total} doc_ids are not among the documents, so nothing that is "
                f"retrieved counts as right for them: {_some(self.unmatched)}"
            )
        return lines


def match_documents(names: Iterable[str], documents: Collection[str]) -> DocumentMatch:
    """Find the document of each name.

    A name is the id of a document; or one of them is the end of the other, folder by folder (``files/a.pdf`` and ``a.pdf``);
    or that holds without the file ending (``a`` and ``files/a.pdf``). The longest common end counts, and only where it is
    that of one document.

    Args:
        names: the documents as questions name them; repeats count once.
        documents: the ids of the documents.
    """
    exact = set(documents)
    whole = _Ends(exact, endings=True)
    bare = _Ends(exact, endings=False)
    ids: dict[str, str] = {}
    unmatched: list[str] = []
    for name in dict.fromkeys(names):
        id = name if name in exact else whole.only_match(name) or bare.only_match(name)
        if id is None:
            unmatched.append(name)
        else:
            ids[name] = id
    return DocumentMatch(ids, tuple(unmatched), tuple(sorted(exact)[:NAMES_SHOWN]))


def require_match(match: DocumentMatch, path: Path, documents: Path | str) -> None:
    """Raise BadInput when questions name documents and none of these names is one.

    Args:
        match: the result of :func:`match_documents`.
        path: the file of the questions.
        documents: the documents or the index, as messages name it.
    """
    if match.unmatched and not match.ids:
        raise BadInput(
            f"{path}: none of {len(match.unmatched)} doc_ids is among the documents of {documents} "
            f"({_some(match.unmatched)}; the documents are {', '.join(match.documents) or 'none'}, ...)",
            "a doc_id is the file's path below the documents folder, or the id of a document row: correct them, or "
            "remove the key",
        )


class _Ends:
    """The ids of documents by every end of their path."""

    def __init__(self, documents: Iterable[str], endings: bool) -> None:
        """Take the ids; without ``endings`` file endings are ignored."""
        self._endings = endings
        self._whole: dict[tuple[str, ...], set[str]] = {}
        self._ends: dict[tuple[str, ...], set[str]] = {}
        for id in documents:
            parts = self._parts(id)
            self._whole.setdefault(parts, set()).add(id)
            for start in range(len(parts)):
                self._ends.setdefault(parts[start:], set()).add(id)

    def only_match(self, name: str) -> str | None:
        """Return the document whose path ends as the name does, or whose whole path is the name's longest end."""
        parts = self._parts(name)
        candidates = self._ends.get(parts, set())
        for start in range(1, len(parts)):
            candidates = candidates or self._whole.get(parts[start:], set())
        return next(iter(candidates)) if len(candidates) == 1 else None

    def _parts(self, name: str) -> tuple[str, ...]:
        parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
        if parts and not self._endings:
            parts[-1] = _ENDING.sub("", parts[-1])
        return tuple(parts)


def _changes(renamed: Mapping[str, str]) -> Counter[str]:
    """Count in which way names differ from ids: a prefix too much or missing, or the file ending."""
    return Counter(_change(name, id) for name, id in renamed.items())


def _change(name: str, id: str) -> str:
    if name.endswith(f"/{id}"):
        return f"without {printable(name.removesuffix(id))!r}"
    if id.endswith(f"/{name}"):
        return f"with {printable(id.removesuffix(name))!r} before"
    if _ENDING.sub("", name) == _ENDING.sub("", id):
        return "with another file ending"
    return "by the end of the path"


def _some(names: Collection[str]) -> str:
    shown = [printable(name) for name in list(names)[:NAMES_SHOWN]]
    return ", ".join(shown) + (", ..." if len(names) > NAMES_SHOWN else "")
