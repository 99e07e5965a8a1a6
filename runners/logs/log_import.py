"""The import of logs: read, cleaned, joined, embedded, clustered and sampled, into rows of a file of questions.

:func:`read_logs` reads the files, the methods of :class:`LogImport` do the rest. Vectors are kept in a work folder
block by block, so that an import that is started again computes only what is missing; the files hold no text.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rag.errors import BadInput
from rag.files import write_bytes
from rag.text.words import count_noun
from rag.types import OnEvent
from runners.data.personal_data import mask_personal_data
from runners.logs.distinct import (
    MAX_DISTINCT,
    DistinctQuestion,
    QuestionCounter,
    join_near_duplicates,
    left_out_note,
)
from runners.logs.groups import (
    QuestionGroups,
    group_count,
    group_questions,
    sample_by_frequency,
    select_questions,
)
from runners.logs.log_reader import LogReader

BLOCK = 1_024
"""Texts whose vectors are one file of the work folder."""
SHOWN_AUTHORS = 3
COMMON_LANGUAGE = 0.05
"""Share of the texts of sure language from which a second language is said."""


class QuestionEncoder(Protocol):
    """What the import needs of an embedder."""

    @property
    def fingerprint(self) -> str:
        """Identifies model and settings."""

    def encode(self, texts: Sequence[str], *, query: bool = False) -> np.ndarray:
        """Return unit vectors, float32 [texts, dimension]."""


@dataclass(slots=True)
class LogImport:
    """The questions of logs, read and counted."""

    reader: LogReader
    counter: QuestionCounter
    questions: list[DistinctQuestion]
    """The different ones, the most asked first."""
    sampled_from: int = 0
    """Different questions of which ``questions`` is a sample; 0 where it has all."""
    near_repeats: int = 0
    """Texts that were joined with a near duplicate."""
    languages: Mapping[str, int] = field(default_factory=dict)

    @property
    def asked(self) -> float:
        """How often the questions were asked in all."""
        return sum(question.asked for question in self.questions)

    def counts(self) -> dict[str, Any]:
        """Return the counts, for ``--json``."""
        counts = {**self.reader.counts, **self.counter.counts}
        names = (
            "rows",
            "damaged",
            "without",
            "continued",
            "asked",
            "empty",
            "greetings",
            "short",
            "too_long",
            "followups",
        )
        return {
            "forms": dict(self.reader.forms),
            **{name: counts.get(name, 0) for name in names},
            "kept": round(self.asked),
            "different_texts": self.counter.spellings,
            "different": self.sampled_from or len(self.questions),
            "compared": len(self.questions),
            "masked": dict(self.counter.masked.most_common()),
            "languages": dict(self.languages),
        }

    def notes(self) -> list[str]:
        """Return what was done with the logs, a sentence each."""
        counts, forms = self.reader.counts, self.reader.forms
        lines = [f"{path}: read as {form}" for path, form in forms.items()]
        rows, turns = (
            count_noun(n, noun)
            for n, noun in ((counts["rows"], "row"), (self.counter.counts["asked"], "turn"))
        )
        different = self.sampled_from or len(self.questions)
        lines.append(
            f"{rows}, {turns} of users; {count_noun(round(self.asked), 'question')} kept, {different:,} different once "
            "repeats are joined"
        )
        if counts["damaged"]:
            more = ", ..." if counts["damaged"] > len(self.reader.damaged) else ""
            damaged = count_noun(counts["damaged"], "damaged row")
            lines.append(f"{damaged} left out ({', '.join(self.reader.damaged)}{more})")
        if authors := self.reader.unknown_authors:
            shown = ", ".join(
                f"{mask_personal_data(name)[0]} ({rows:,})"
                for name, rows in authors.most_common(SHOWN_AUTHORS)
            )
            lines.append(
                f"taken as people who ask, as no list knows them: {count_noun(len(authors), 'author')}: {shown}"
                f"{', ...' if len(authors) > SHOWN_AUTHORS else ''}; call those who answer agent, support or staff"
            )
        if counts["without"]:
            lines.append(f"{count_noun(counts['without'], 'row')} without a question of a user")
        if counts["continued"]:
            lines.append(
                f"{count_noun(counts['continued'], 'row')} of a question counted before (tools, traces)"
            )
        if left_out := left_out_note(self.counter.counts):
            lines.append(left_out)
        if self.counter.counts["followups"]:
            lines.append(f"{self.counter.counts['followups']:,} follow-ups kept with the turns they need")
        if self.sampled_from:
            lines.append(
                f"of {self.sampled_from:,} different questions {MAX_DISTINCT:,} were drawn by how often each is "
                "asked: only those are compared and embedded"
            )
        if len(self.languages) > 1:
            shown = ", ".join(f"{name} {count:,}" for name, count in self.languages.items())
            lines.append(f"more than one language, all kept (texts of sure language): {shown}")
        if self.counter.masked:
            kinds = ", ".join(f"{kind} in {count:,}" for kind, count in self.counter.masked.most_common())
            lines.append(f"masked: {kinds}; names and places are not recognised")
        return lines

    def embed(self, encoder: QuestionEncoder, folder: Path, on_event: OnEvent | None = None) -> np.ndarray:
        """Return the vectors of the questions, of follow-ups with the question before, float32 [questions,
        dimension].
        """
        texts = [" ".join([*_user_texts(question), question.text]) for question in self.questions]
        return embed_in_blocks(encoder, texts, folder, on_event)

    def group(self, vectors: np.ndarray, wanted: int, groups: int = 0, seed: int = 0) -> QuestionGroups:
        """Return the clusters; ``groups`` sets their number, which is that of :func:`group_count` otherwise."""
        count = groups or group_count(len(self.questions), wanted)
        return group_questions(vectors, [question.asked for question in self.questions], count, seed)

    def rows(self, groups: QuestionGroups, wanted: int, seed: int = 0) -> list[dict[str, Any]]:
        """Return the rows of a file of questions, the one that stands for most first."""
        chosen = select_questions(self.questions, groups, wanted, seed)
        return [
            log_question_row(number, self.questions[n], weight, int(groups.of[n]) + 1)
            for number, (n, weight) in enumerate(chosen, start=1)
        ]


def read_logs(
    paths: Sequence[Path],
    columns: Mapping[str, str] | None = None,
    seed: int = 0,
    on_event: OnEvent | None = None,
) -> LogImport:
    """Read logs, mask personal data and join repeats.

    Raises:
        BadInput: a file is missing or of no known form, or there is no question in them.
    """
    reader, counter = LogReader(columns), QuestionCounter()
    for path in paths:
        for asked in reader.read(path):
            counter.add(asked)
            if on_event and counter.counts["asked"] % 1_000 == 0:
                on_event({"event": "log.rows", "done": counter.counts["asked"]})
    joined = counter.joined()
    if not joined:
        left_out = left_out_note(counter.counts)
        raise BadInput(
            f"{', '.join(map(str, paths))}: no question in {count_noun(reader.counts['rows'], 'row')}"
            + (f", {reader.counts['damaged']:,} of them damaged" if reader.counts["damaged"] else "")
            + (f"; {left_out}" if left_out else ""),
            "give a log in which people ask something",
        )
    different = len(joined)
    if different > MAX_DISTINCT:
        drawn = sample_by_frequency([question.asked for question in joined], MAX_DISTINCT, seed)
        joined = [replace(joined[n], asked=weight) for n, weight in sorted(drawn.items())]
    questions = join_near_duplicates(joined)
    languages = counter.languages()
    common = {name: n for name, n in languages.items() if n >= COMMON_LANGUAGE * sum(languages.values())}
    return LogImport(
        reader=reader,
        counter=counter,
        questions=questions,
        sampled_from=different if different > MAX_DISTINCT else 0,
        near_repeats=len(joined) - len(questions),
        languages=common,
    )


def log_question_row(number: int, question: DistinctQuestion, weight: float, group: int) -> dict[str, Any]:
    """Return the row of a question: ``messages`` where it needs earlier turns, and its weight."""
    if question.before:
        turns = [{"role": turn.role, "content": turn.text} for turn in question.before]
        asked: dict[str, Any] = {"messages": [*turns, {"role": "user", "content": question.text}]}
    else:
        asked = {"question": question.text}
    return {
        "id": f"log-{number:04d}",
        **asked,
        "weight": round(weight, 4),
        "asked": round(question.asked, 4),
        "group": group,
    }


def _user_texts(question: DistinctQuestion) -> list[str]:
    return [turn.text for turn in question.before if turn.role == "user"][-1:]


def embed_in_blocks(
    encoder: QuestionEncoder, texts: Sequence[str], folder: Path, on_event: OnEvent | None = None
) -> np.ndarray:
    """Return the vectors of texts as questions; blocks that the folder has already are not computed again."""
    blocks = []
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(texts), BLOCK):
        block = texts[start : start + BLOCK]
        digest = sha256("\0".join([encoder.fingerprint, *block]).encode()).hexdigest()[:32]
        path = folder / f"vectors-{digest}.npy"
        vectors = _stored(path, len(block))
        if vectors is None:
            vectors = np.asarray(encoder.encode(block, query=True), dtype=np.float32)
            buffer = io.BytesIO()
            np.save(buffer, vectors, allow_pickle=False)
            write_bytes(path, buffer.getvalue())
        blocks.append(vectors)
        if on_event:
            on_event({"event": "embed.batch", "done": min(start + BLOCK, len(texts)), "total": len(texts)})
    return np.concatenate(blocks) if blocks else np.empty((0, 0), dtype=np.float32)


def _stored(path: Path, count: int) -> np.ndarray | None:
    """Return the vectors of a block; None where it is not there or was not written to its end."""
    try:
        vectors = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return vectors if vectors.ndim == 2 and len(vectors) == count else None
