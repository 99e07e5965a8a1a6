"""What training rows give away of held-out rows: the same question, nearly it, the same fact or document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from runners import near
from runners.complaints import Check, Place, place, places, rows_of
from runners.data import Question
from runners.example import Example, normalised

KINDS = ("word for word", "but for case and punctuation", "nearly", "by the same fact", "same document")
"""How a held-out row is given away, gravest first; the first four make its score worthless."""
NEARLY = KINDS[2]


@dataclass(frozen=True, slots=True)
class Leak:
    """One held-out row that a training row gives away."""

    kind: str
    held_out: Place
    """Place of the held-out row."""
    row: Place
    """Place of the training row."""


@dataclass(frozen=True, slots=True)
class _Asked:
    line: Place
    text: str
    doc: str
    fact: str


def find(rows: Sequence[Example], held_out: Sequence[Example | Question]) -> tuple[Leak, ...]:
    """Return, for each held-out row that is given away, how it is most gravely.

    What is compared is everything the user says; a text row has only itself. The same words about different
    documents, where both rows name theirs, are two questions ("When does it open?").
    """
    asked, taught = [_asked(row) for row in held_out], [_asked(row) for row in rows]
    nearly = near.matches([a.text for a in asked], [t.text for t in taught])
    words, exact = dict[str, list[_Asked]](), dict[str, list[_Asked]]()
    facts, documents = dict[tuple[str, str], _Asked](), dict[str, _Asked]()
    for row in taught:
        exact.setdefault(row.text, []).append(row)
        words.setdefault(normalised(row.text) or row.text, []).append(row)
        if row.doc:
            documents.setdefault(row.doc, row)
            facts.setdefault((row.doc, row.fact), row)
    found = []
    for one, near_by in zip(asked, nearly, strict=True):
        candidates = (
            _other(one, exact.get(one.text, [])),
            _other(one, words.get(normalised(one.text), [])),
            _other(one, [taught[at] for at in near_by]),
            facts.get((one.doc, one.fact)) if one.doc and one.fact else None,
            documents.get(one.doc) if one.doc else None,
        )
        hit = next(((kind, row) for kind, row in zip(KINDS, candidates, strict=True) if row), None)
        if hit:
            found.append(Leak(hit[0], one.line, hit[1].line))
    return tuple(found)


def questions(rows: Sequence[Example], asked: Sequence[Question]) -> Check:
    """Return the check of held-out questions: asking about a document that rows are about too is no leak."""
    leaks, beside = _parted(find(rows, asked))
    if leaks:
        return Check(
            "PF013", "stop",
            f"{len(leaks)} of {len(asked)} held-out questions also occur in the examples: {_told(leaks)}",
            _pairs(leaks), "remove them from one of the two files: a score on them says nothing",
        )  # fmt: skip
    about = f"; {len(beside)} are about documents that rows are about too" if beside else ""
    return Check("PF013", "ok", f"none of {len(asked)} held-out questions occurs in the examples{about}")


def validation(rows: Sequence[Example], valid: Sequence[Example]) -> Check:
    """Return the check of validation rows: a loss on rows that were learnt never rises, so nothing stops early."""
    found = find(rows, valid)
    leaks, beside = [x for x in found if x.kind in KINDS[:3]], [x for x in found if x.kind in KINDS[3:]]
    todo = "leave --valid out and let --valid-share divide the rows by document and near repeat"
    if leaks:
        text = (
            f"{len(leaks)} of {rows_of(len(valid))} for validation also occur in the examples: {_told(leaks)}"
        )
        return Check("PF014", "stop", text, _pairs(leaks), todo)
    if beside:
        text = f"{len(beside)} of {rows_of(len(valid))} for validation are about facts or documents that are learnt too"
        return Check("PF014", "warn", text, _pairs(beside), todo)
    return Check("PF014", "ok", f"{rows_of(len(valid))} for validation share no question and no document")


def _parted(found: Sequence[Leak]) -> tuple[list[Leak], list[Leak]]:
    return [x for x in found if x.kind != KINDS[-1]], [x for x in found if x.kind == KINDS[-1]]


def _told(leaks: Sequence[Leak]) -> str:
    counted = Counter(leak.kind for leak in leaks)
    return ", ".join(f"{counted[kind]} {kind}" for kind in KINDS if kind in counted)


def _pairs(leaks: Sequence[Leak]) -> tuple[Place, ...]:
    return places(f"{leak.held_out} = {leak.row}" for leak in leaks)


def _other(one: _Asked, rows: Sequence[_Asked]) -> _Asked | None:
    return next((row for row in rows if not one.doc or not row.doc or one.doc == row.doc), None)


def _asked(row: Example | Question) -> _Asked:
    if isinstance(row, Question):
        turns = (*row.history, {"role": "user", "content": row.question})
        return _Asked(row.line, _said(turns), row.doc_id or "", normalised(row.fact or ""))
    text = _said(row.messages) or row.reply
    meta = row.meta
    return _Asked(place(row), text, str(meta.get("doc_id") or ""), normalised(str(meta.get("fact") or "")))


def _said(turns: Sequence[dict[str, str]]) -> str:
    return "\n".join(turn["content"].strip() for turn in turns if turn["role"] == "user")
