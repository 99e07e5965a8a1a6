"""Answers that a run recorded, given again for the same chats: :class:`RecordedGenerator`.

The journal of a trial holds every chat as it was sent. A chat that is the same today gets the recorded answer, and only the
others are asked. Decoding is greedy, so an answer that is asked again would be the same; where it would not be, because
another number of threads or another machine adds in another order, taking the recorded one is what keeps a change that
touches nothing from looking like one.

Two chats are the same when the model reads the same words. What a prompt says of a passage's place (document and lines) and
the delimiter drawn for it do not count: a file that was renamed, merged with another or wrapped anew gives the same chats as
long as the passages hold the same text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from rag.files import canonical_json
from rag.grounding.context import DATA_NOTICE
from runners.arms.long_context import PASSAGES_FOLDER
from runners.data.formats import Message
from runners.inference.constraints.constraint import OutputConstraint
from runners.inference.types import Completion, CompletionStream, Generator, labels_and_nearest

REFUSED = "refused"
"""How an answer ends that was given without asking the model."""
_STORED_PASSAGES = re.compile(rf"\{{({PASSAGES_FOLDER}/[0-9a-f]+\.txt)\}}")
_PASSAGES = re.compile(rf"^{re.escape(DATA_NOTICE)}\n(\S+)\n(.*?)\n\1$", re.MULTILINE | re.DOTALL)
_PLACE = re.compile(r"^(\[\d+\] .*?) \(.*?(?::\d+(?:-\d+)?| p\. \d+)(, .*)?\)$", re.MULTILINE)
"""The heading of a passage: "[1] Title > Heading (fares.md:12-14, 2026-03-01)" or "(guide.pdf p. 3)"; the date is group 2.

A file's name may hold parentheses too, so the place begins at the first one that leads up to lines.
"""


def chat_key(chat: Sequence[Mapping[str, str]]) -> str:
    """Return a text that two chats share when the model reads the same words in both."""
    return canonical_json([{**turn, "content": _without_places(turn["content"])} for turn in chat])


def _without_places(text: str) -> str:
    """Return a turn without the delimiter of its passages, and without the document and lines in their headings."""
    return _PASSAGES.sub(lambda shown: _PLACE.sub(r"\1 (\2)", shown[2]), text)


class RecordedAnswers:
    """The rows of a journal by arm, seed and chat."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
        """Index the rows.

        Args:
            rows: of the journal.
            folder: the trial's folder, with the passages that rows share.
        """
        self._folder = folder
        self._by_chat: dict[tuple[str, int, str], Mapping[str, Any]] = {}
        self._refused = set[tuple[str, int, str]]()
        for row in rows:
            if row.get("finish") == REFUSED:
                self._refused.add((row["arm"], row["seed"], row["id"]))
            elif row.get("prompt"):
                self._by_chat[row["arm"], row["seed"], self.key(row)] = row

    def key(self, row: Mapping[str, Any]) -> str:
        """Return the key of a row's chat, with the passages that are stored in a file of their own."""
        return chat_key([{**turn, "content": self._restored(turn["content"])} for turn in row["prompt"]])

    def _restored(self, text: str) -> str:
        return _STORED_PASSAGES.sub(lambda match: _read_passages(self._folder / match[1]), text)

    def answer(self, arm: str, seed: int, key: str) -> Mapping[str, Any] | None:
        """Return the row of an arm's answer to a chat; None where it was not asked."""
        return self._by_chat.get((arm, seed, key))

    def refused(self, arm: str, seed: int, question: str) -> bool:
        """Return whether a question was refused without asking the model."""
        return (arm, seed, question) in self._refused


@lru_cache(maxsize=8)
def _read_passages(file: Path) -> str:
    return file.read_text("utf-8") if file.is_file() else f"{{{file.name} is missing}}"


class RecordedGenerator:
    """Gives recorded answers to the chats that have one, and asks a model the others; it is loaded only then."""

    def __init__(
        self,
        model: Callable[[], Generator],
        recorded: Callable[[str], Mapping[str, Any] | None],
        longest: int | None = None,
    ) -> None:
        """Take the two sources.

        Args:
            model: loads the model.
            recorded: returns the recorded row of a chat's key, None where there is none.
            longest: most tokens that the recorded answers could have; None where it is the same as now.
        """
        self._model = model
        self._recorded = recorded
        self._longest = longest

    def usable(self, row: Mapping[str, Any], max_new_tokens: int) -> bool:
        """Return whether a recorded answer would be the same with this limit of tokens: it ended before both limits."""
        if self._longest is None:
            return True
        return row["finish"] != "length" and row["completion_tokens"] < max_new_tokens

    def generate(
        self,
        chats: Sequence[Sequence[Message]],
        max_new_tokens: int,
        on_batch: Callable[[list[int], list[Completion]], None] | None = None,
        *,
        known: Container[int] = (),
        constraint: OutputConstraint | None = None,
    ) -> list[Completion]:
        """Answer every chat as :meth:`Generator.generate` does; recorded answers come first, in one batch.

        The model is given all chats, so that those it is asked are batched as in the run.
        """
        rows = {
            n: row
            for n, chat in enumerate(chats)
            if n not in known
            and (row := self._recorded(chat_key(chat))) is not None
            and self.usable(row, max_new_tokens)
        }
        given = {n: _completion(row) for n, row in rows.items()}
        if given and on_batch:
            on_batch(list(given), list(given.values()))
        asked = [n for n in range(len(chats)) if n not in known and n not in given]
        if asked:
            answered: dict[int, Completion] = {}

            def keep(batch: list[int], completions: list[Completion]) -> None:
                answered.update(zip(batch, completions, strict=True))
                if on_batch:
                    on_batch(batch, completions)

            skipped = set(range(len(chats))) - set(asked)
            held = {"constraint": constraint} if constraint is not None else {}
            self._model().generate(chats, max_new_tokens, keep, known=skipped, **held)
            given |= answered
        return [given[n] for n in range(len(chats)) if n in given]

    def stream(
        self, chat: Sequence[Message], max_new_tokens: int, *, constraint: OutputConstraint | None = None
    ) -> CompletionStream:
        """Answer one chat in a single piece."""
        return CompletionStream.of_whole(
            lambda: self.generate([chat], max_new_tokens, constraint=constraint)[0]
        )

    def count_tokens(self, text: str) -> int:
        """Return the number of tokens of a text for the model, which is loaded for it."""
        return self._model().count_tokens(text)


def _completion(row: Mapping[str, Any]) -> Completion:
    """Return the completion that a row of the journal was made from."""
    labels, nearest = labels_and_nearest(row)
    return Completion(
        (row.get("withheld") or row)["answer"],
        row["prompt_tokens"],
        row["completion_tokens"],
        row["seconds"],
        row["finish"],
        row.get("tokens_estimated", False),
        row.get("reasoning_tokens", 0),
        row.get("reasoning_cut", False),
        labels,
        nearest,
    )
