"""Leakage: held-out rows that training rows or instructions hold too. Finds them; :mod:`runners.runs.dataset` refuses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from runners.data import duplicates
from runners.data.examples import Example, RowPlace, normalise_text, row_place
from runners.data.questions import Question

EXACT_MATCH = "word for word"
NORMALISED_MATCH = "but for case and punctuation"
NEAR_REPEAT = "nearly"
SAME_FACT = "by the same fact"
IN_PROMPT = "in the instructions"
SAME_DOCUMENT = "same document"
LEAK_KINDS = (EXACT_MATCH, NORMALISED_MATCH, NEAR_REPEAT, SAME_FACT, IN_PROMPT, SAME_DOCUMENT)
"""How a training row and a held-out row may be tied, gravest first."""
LEAKING = LEAK_KINDS[:-1]
"""The kinds that make a score worthless; another fact of the same document does not."""
PROMPT_PLACE = "prompt"
"""Place of the instructions that :func:`find_all` is given, beside those in the rows' system turns."""
MIN_PROMPT_WORDS = 4
"""A question of fewer words may occur in the instructions by coincidence, and is not looked for there."""


@dataclass(frozen=True, slots=True)
class Leak:
    """One way in which a training row, or the instructions, give one held-out row away."""

    kind: str
    """One of :data:`KINDS`."""
    held_out: RowPlace
    """Place of the held-out row."""
    row: RowPlace
    """Place of the training row; for :data:`IN_PROMPT` the place of a row with these instructions, or :data:`PROMPT`."""


@dataclass(frozen=True, slots=True)
class _Compared:
    """What is compared of a row."""

    line: RowPlace
    text: str
    """Everything the user says; of a raw text, which has no user, the text itself."""
    doc: str
    fact: str
    """Normalised gold fact."""


def find_leaks(
    rows: Sequence[Example], held_out: Sequence[Example | Question], prompt: str = ""
) -> tuple[Leak, ...]:
    """Return one leak for each held-out row that has any: the gravest of :func:`find_all`."""
    return tuple(leaks[0] for leaks in find_all_leaks(rows, held_out, prompt) if leaks)


def find_all_leaks(
    rows: Sequence[Example], held_out: Sequence[Example | Question], prompt: str = ""
) -> list[list[Leak]]:
    """Return the leaks of each held-out row, gravest first and at most one of each kind.

    The same words about different documents, where both rows name theirs, are two questions ("When does it open?").
    Questions are also looked for in the instructions: in ``prompt`` and in the system turns of the rows, by their
    normalised words, from :data:`MIN_PROMPT_WORDS` words on.
    """
    compared, trained = [_of(row) for row in held_out], [_of(row) for row in rows]
    near_by = duplicates.near_duplicate_matches([one.text for one in compared], [row.text for row in trained])
    same, alike = dict[str, list[_Compared]](), dict[str, list[_Compared]]()
    facts, documents = dict[tuple[str, str], _Compared](), dict[str, _Compared]()
    for row in trained:
        same.setdefault(row.text, []).append(row)
        alike.setdefault(normalise_text(row.text) or row.text, []).append(row)
        if row.doc:
            documents.setdefault(row.doc, row)
            facts.setdefault((row.doc, row.fact), row)
    shown = _in_prompts(rows, held_out, prompt)
    leaks = []
    for number, (one, places) in enumerate(zip(compared, near_by, strict=True)):
        row_of_kind = {
            EXACT_MATCH: _same_document(one, same.get(one.text, [])),
            NORMALISED_MATCH: _same_document(one, alike.get(normalise_text(one.text), [])),
            NEAR_REPEAT: _same_document(one, [trained[at] for at in places]),
            SAME_FACT: facts.get((one.doc, one.fact)) if one.doc and one.fact else None,
            SAME_DOCUMENT: documents.get(one.doc) if one.doc else None,
        }
        where = {kind: row.line for kind, row in row_of_kind.items() if row}
        if number in shown:
            where[IN_PROMPT] = shown[number]
        leaks.append([Leak(kind, one.line, where[kind]) for kind in LEAK_KINDS if kind in where])
    return leaks


def _in_prompts(
    rows: Sequence[Example], held_out: Sequence[Example | Question], prompt: str
) -> dict[int, RowPlace]:
    """Return the positions of the questions that the instructions hold, with the place of these instructions.

    One pass over the words of the instructions: at each position, the questions that begin with the next four words
    are compared in full.
    """
    starting: dict[tuple[str, ...], list[tuple[int, list[str]]]] = {}
    for number, row in enumerate(held_out):
        words = normalise_text(row.question).split() if isinstance(row, Question) else []
        if len(words) >= MIN_PROMPT_WORDS:
            starting.setdefault(tuple(words[:MIN_PROMPT_WORDS]), []).append((number, words))
    if not starting:
        return {}
    instructions: dict[str, RowPlace] = {prompt: PROMPT_PLACE}
    for example in rows:
        instructions.setdefault(example.system, row_place(example))
    shown: dict[int, RowPlace] = {}
    for text, where in instructions.items():
        words = normalise_text(text).split()
        for at, start in _windows(words):
            for number, wanted in starting.get(start, ()):
                if words[at : at + len(wanted)] == wanted:
                    shown.setdefault(number, where)
    return shown


def _windows(words: Sequence[str]) -> Iterator[tuple[int, tuple[str, ...]]]:
    return enumerate(zip(*(words[n:] for n in range(MIN_PROMPT_WORDS)), strict=False))


def _same_document(one: _Compared, rows: Sequence[_Compared]) -> _Compared | None:
    """Return the first of the rows that is not known to be about another document."""
    return next((row for row in rows if not one.doc or not row.doc or one.doc == row.doc), None)


def _of(row: Example | Question) -> _Compared:
    if isinstance(row, Question):
        turns = (*row.history, {"role": "user", "content": row.question})
        return _Compared(row.line, _user_turns(turns), row.doc_id or "", normalise_text(row.fact or ""))
    text = _user_turns(row.messages) or row.reply
    meta = row.meta
    fact = normalise_text(str(meta.get("fact") or ""))
    return _Compared(row_place(row), text, str(meta.get("doc_id") or ""), fact)


def _user_turns(turns: Sequence[dict[str, str]]) -> str:
    return "\n".join(turn["content"].strip() for turn in turns if turn["role"] == "user")
