"""Passages of public sets as lists of sentences, for statements that are made from them by script."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rag.text.words import sentences
from rag.types import Chunk, Hit

DEV_SETS = ("xquad_en", "hybrid_concierge", "rust_rfc_text", "gsm8k_format")
"""Rules are made by looking at these."""
REPORT_SETS = ("clapnq_dev", "dstc11_reviews", "mtragun_followups", "qed_reading", "endoflife_dates")
"""Statements of these are only counted."""
MOST_CHARACTERS = 1500
"""Characters of a passage at most: the size of a chunk."""
BESIDE = 4
"""Further passages that are shown with the one that a statement is made from."""
_FACTS = 8
"""Facts of one place that form a passage in the sets that have one fact a row."""
_SUM = re.compile(r"<<[^>]*>>")


@dataclass(frozen=True)
class Passage:
    """One passage, with those that a search would return beside it."""

    set: str
    title: str
    text: str
    beside: tuple[tuple[str, str], ...] = ()
    """Title and text of other passages."""

    @property
    def sentences(self) -> list[str]:
        """The sentences that are prose: 5 to 45 words, with a capital first letter and a full stop."""
        return [
            text
            for text in sentences(self.text)
            if 5 <= len(text.split()) <= 45 and text[0].isupper() and text.endswith(".") and "\n" not in text
        ]

    @property
    def hits(self) -> list[Hit]:
        """This passage and those beside it, as a search returns them."""
        shown = [(self.title, self.text), *self.beside]
        return [
            Hit(Chunk(n, f"{self.set}/{n}", title, 0, text, 0, len(text)), 1.0, 1.0, 1.0)
            for n, (title, text) in enumerate(shown)
        ]


def passages(data: Path, name: str) -> list[Passage]:
    """Return the passages of a set in the order of its file, each with its neighbours."""
    texts = [(title, _tidy(text)) for title, text in _texts(data / name, name)]
    texts = [(title, text) for title, text in texts if len(text) > 80]
    return [
        Passage(name, title, text, tuple(texts[max(0, n - 2) : n] + texts[n + 1 : n + 1 + BESIDE // 2]))
        for n, (title, text) in enumerate(texts)
    ]


def _texts(folder: Path, name: str) -> Iterator[tuple[str, str]]:
    """Yield title and text of a set's passages."""
    if (folder / "documents.jsonl").exists():
        rows = _rows(folder / "documents.jsonl")
        if name == "hybrid_concierge":
            places: defaultdict[str, list[str]] = defaultdict(list)
            for row in rows:
                places[row["title"]].append(row["text"].rstrip(" .") + ".")
            for title, facts in places.items():
                for at in range(0, len(facts), _FACTS):
                    yield title, " ".join(facts[at : at + _FACTS])
        else:
            yield from ((row["title"], row["text"]) for row in rows)
        return
    for row in _rows(folder / "train.jsonl"):
        if "text" in row:
            yield "", row["text"]
        else:
            user = next(turn["content"] for turn in row["messages"] if turn["role"] == "user")
            yield "", _SUM.sub("", user.split("\n\nQuestion:")[0])


def _rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


def _tidy(text: str) -> str:
    """Join what a tokenizer took apart ("1961 ." and "`` x ''"), and cut to the size of a chunk."""
    text = re.sub(r"``\s*|\s*''", '"', text)
    text = re.sub(r"\s+([.,;:?!)%])", r"\1", re.sub(r"([($])\s+", r"\1", text))
    text = re.sub(r"(\w) (-|'s\b) ?(?=\w|\s)", r"\1\2", text) if " - " in text or " 's" in text else text
    text = re.sub(r"[ \t\ufeff]+", " ", text).strip()
    if len(text) <= MOST_CHARACTERS:
        return text
    return text[: text.rfind(". ", 0, MOST_CHARACTERS) + 1 or MOST_CHARACTERS]
