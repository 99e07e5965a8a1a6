"""Find leakage: held-out rows that training rows or the instructions contain too.

:func:`find_all_leaks` returns every leak of each held-out row, :func:`find_leaks` the gravest; the decision to refuse
the data is made in :mod:`runners.runs.dataset`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from runners.data import duplicates
from runners.data.examples import Example, RowPlace, normalise_text, row_place, shared_opening
from runners.data.questions import Question, with_wordings

EXACT_MATCH = "word for word"
NORMALISED_MATCH = "but for case and punctuation"
NEAR_REPEAT = "nearly"
SAME_FACT = "by the same fact"
IN_PROMPT = "in the instructions"
SAME_DOCUMENT = "same document"
LEAK_KINDS = (EXACT_MATCH, NORMALISED_MATCH, NEAR_REPEAT, SAME_FACT, IN_PROMPT, SAME_DOCUMENT)
"""Kinds of leakage, gravest first."""
LEAKING = LEAK_KINDS[:-1]
"""The kinds that make a score worthless; another fact of the same document does not."""
PROMPT_PLACE = "prompt"
"""Place of a leak in the ``prompt`` given to :func:`find_all_leaks`, as opposed to the rows' system turns."""
MIN_PROMPT_WORDS = 4
"""A question of fewer words may occur in the instructions by coincidence, and is not searched for there."""


@dataclass(frozen=True, slots=True)
class Leak:
    """One leak of a held-out row into a training row or the instructions."""

    kind: str
    """One of :data:`LEAK_KINDS`."""
    held_out: RowPlace
    """Place of the held-out row."""
    row: RowPlace
    """Place of the training row; for :data:`IN_PROMPT` that of a row with these instructions, or :data:`PROMPT_PLACE`."""


@dataclass(frozen=True, slots=True)
class _Compared:
    """The parts of a row that are compared."""

    line: RowPlace
    text: str
    """All user turns; for a raw text, which has none, the text itself."""
    doc: str
    fact: str
    """The gold fact, normalised."""


def find_leaks(
    rows: Sequence[Example], held_out: Sequence[Example | Question], prompt: str = ""
) -> tuple[Leak, ...]:
    """Return the gravest leak of :func:`find_all_leaks` for each held-out row that has any."""
    return tuple(leaks[0] for leaks in find_all_leaks(rows, held_out, prompt) if leaks)


def find_all_leaks(
    rows: Sequence[Example], held_out: Sequence[Example | Question], prompt: str = ""
) -> list[list[Leak]]:
    """Return the leaks of each held-out row, gravest first and at most one of each kind.

    Rows with the same words that name different documents are different questions ("When does it open?"), not a leak.
    Questions are also searched for in the instructions, in ``prompt`` and in the system turns of the rows, by their
    normalised words, from :data:`MIN_PROMPT_WORDS` words on. What leaks by a question's wording leaks the question.
    Paragraphs that all training rows begin with, such as the instruction of Alpaca's form, are not compared.

    Args:
        rows: the training rows.
        held_out: rows or questions that must be unknown to the model.
        prompt: instructions shown with every row.
    """
    owners: list[int] = []
    asked: list[Example | Question] = []
    for number, held in enumerate(held_out):
        forms = with_wordings([held]) if isinstance(held, Question) else [held]
        asked += forms
        owners += [number] * len(forms)
    first_of_kind: list[dict[str, Leak]] = [{} for _ in held_out]
    for owner, leaks in zip(owners, _leaks_of_each(rows, asked, prompt), strict=True):
        for leak in leaks:
            first_of_kind[owner].setdefault(leak.kind, leak)
    return [[leaks[kind] for kind in LEAK_KINDS if kind in leaks] for leaks in first_of_kind]


def _leaks_of_each(
    rows: Sequence[Example], held_out: Sequence[Example | Question], prompt: str
) -> list[list[Leak]]:
    """Return the leaks of each row or form of a question, at most one of each kind."""
    trained = [_compared(row) for row in rows]
    # A question has no such instruction in front of it, or the same one: the words behind it are compared.
    opening = shared_opening([row.text for row in trained])
    trained = [replace(row, text=row.text.removeprefix(opening)) for row in trained]
    held_out_texts = [_compared(row) for row in held_out]
    held_out_texts = [replace(held, text=held.text.removeprefix(opening)) for held in held_out_texts]
    near_matches = duplicates.near_duplicate_matches(
        [held.text for held in held_out_texts], [row.text for row in trained]
    )
    by_text = dict[str, list[_Compared]]()
    by_normalised_text = dict[str, list[_Compared]]()
    by_fact = dict[tuple[str, str], _Compared]()
    by_document = dict[str, _Compared]()
    for row in trained:
        by_text.setdefault(row.text, []).append(row)
        by_normalised_text.setdefault(normalise_text(row.text) or row.text, []).append(row)
        if row.doc:
            by_document.setdefault(row.doc, row)
            by_fact.setdefault((row.doc, row.fact), row)
    in_prompts = _in_prompts(rows, held_out, prompt)
    leaks = []
    for number, (held, near) in enumerate(zip(held_out_texts, near_matches, strict=True)):
        row_of_kind = {
            EXACT_MATCH: _same_document(held, by_text.get(held.text, [])),
            NORMALISED_MATCH: _same_document(held, by_normalised_text.get(normalise_text(held.text), [])),
            NEAR_REPEAT: _same_document(held, [trained[index] for index in near]),
            SAME_FACT: by_fact.get((held.doc, held.fact)) if held.doc and held.fact else None,
            SAME_DOCUMENT: by_document.get(held.doc) if held.doc else None,
        }
        place_of_kind = {kind: row.line for kind, row in row_of_kind.items() if row}
        if number in in_prompts:
            place_of_kind[IN_PROMPT] = in_prompts[number]
        leaks.append([Leak(kind, held.line, place) for kind, place in place_of_kind.items()])
    return leaks


def _in_prompts(
    rows: Sequence[Example], held_out: Sequence[Example | Question], prompt: str
) -> dict[int, RowPlace]:
    """Return, by index into ``held_out``, the place of the instructions that contain the question.

    One pass over the words of the instructions: at each position, the questions that begin with the next four words
    are compared in full.
    """
    by_first_words: dict[tuple[str, ...], list[tuple[int, list[str]]]] = {}
    for number, row in enumerate(held_out):
        words = normalise_text(row.question).split() if isinstance(row, Question) else []
        if len(words) >= MIN_PROMPT_WORDS:
            by_first_words.setdefault(tuple(words[:MIN_PROMPT_WORDS]), []).append((number, words))
    if not by_first_words:
        return {}
    instructions: dict[str, RowPlace] = {prompt: PROMPT_PLACE}
    for example in rows:
        instructions.setdefault(example.system, row_place(example))
    places: dict[int, RowPlace] = {}
    for text, place in instructions.items():
        words = normalise_text(text).split()
        for position, window in _windows(words):
            for number, question_words in by_first_words.get(window, ()):
                if words[position : position + len(question_words)] == question_words:
                    places.setdefault(number, place)
    return places


def _windows(words: Sequence[str]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield each position with the :data:`MIN_PROMPT_WORDS` words from there on."""
    return enumerate(zip(*(words[n:] for n in range(MIN_PROMPT_WORDS)), strict=False))


def _same_document(held: _Compared, rows: Sequence[_Compared]) -> _Compared | None:
    """Return the first of the rows that does not name another document than the held-out row does."""
    return next((row for row in rows if not held.doc or not row.doc or held.doc == row.doc), None)


def _compared(row: Example | Question) -> _Compared:
    if isinstance(row, Question):
        turns = (*row.history, {"role": "user", "content": row.question})
        return _Compared(row.line, _user_turns(turns), row.doc_id or "", normalise_text(row.fact or ""))
    text = _user_turns(row.messages) or row.reply
    meta = row.meta
    fact = normalise_text(str(meta.get("fact") or ""))
    return _Compared(row_place(row), text, str(meta.get("doc_id") or ""), fact)


def _user_turns(turns: Sequence[dict[str, str]]) -> str:
    return "\n".join(turn["content"].strip() for turn in turns if turn["role"] == "user")
