"""Which chats count as the same, and that recorded answers are given for exactly those."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rag.grounding.context import format_passages
from rag.types import Chunk, Hit
from runners.inference.types import Completion
from runners.recheck.recorded import RecordedAnswers, RecordedGenerator, chat_key


def chat(text: str, **changed: Any) -> list[dict[str, str]]:
    """Return a chat with one passage of this text."""
    values: dict[str, Any] = {"doc": "a.md", "title": "Fares", "start": 0, "line_start": 3} | changed
    date = values.pop("date", "")
    end = values["start"] + len(text)
    known = Chunk.__dataclass_fields__
    fields: dict[str, Any] = {
        "id": 1,
        "text": text,
        "end": end,
        "heading": "",
        "ordinal": 0,
        "page": None,
        "line_end": values["line_start"],
    }
    chunk = Chunk(**{k: v for k, v in (fields | values).items() if k in known})
    shown = format_passages(
        [Hit(chunk, 0.0, 0.0, 0.0, metadata={"date": date} if date else {})], 500, len, "q"
    )
    return [{"role": "user", "content": f"Passages:\n{shown}\n\nQuestion: q"}]


def test_the_place_of_a_passage_does_not_count() -> None:
    key = chat_key(chat("Dogs travel for 3 euros."))
    assert chat_key(chat("Dogs travel for 3 euros.", doc="moved/b (2).md", start=90, line_start=44)) == key
    assert chat_key(chat("Dogs travel for 4 euros.")) != key
    assert chat_key(chat("Dogs travel for 3 euros.", title="Dogs")) != key
    assert "Dogs travel for 3 euros." in key


def test_words_outside_of_passages_count() -> None:
    first, second = chat("Dogs travel."), chat("Dogs travel.")
    second[0]["content"] = second[0]["content"].replace("Question: q", "Question: p")
    assert chat_key(first) != chat_key(second)
    plain = [{"role": "user", "content": "vslx [1] Fares (a.md:3)\nvslx end"}]
    assert chat_key(plain) != chat_key([{"role": "user", "content": "vslx [1] Fares (b.md:3)\nvslx end"}])


class Model:
    """A model that answers with the number of the chat, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def generate(
        self, chats: Sequence[Any], max_new_tokens: int, on_batch: Any = None, *, known: Any = ()
    ) -> list[Completion]:
        """Answer all but the known ones."""
        self.asked = [n for n in range(len(chats)) if n not in known]
        completions = [Completion(f"new {n}", 1, 1, 0.1, "stop") for n in self.asked]
        on_batch(self.asked, completions)
        return completions


def row(question: str, answer: str, tokens: int = 2, finish: str = "stop") -> dict[str, Any]:
    """Return a row of a journal."""
    return {
        "arm": "rag", "seed": 0, "id": question, "answer": answer, "finish": finish, "seconds": 1.0,
        "prompt": [{"role": "user", "content": question}], "prompt_tokens": 5, "completion_tokens": tokens,
    }  # fmt: skip


@pytest.mark.parametrize(("longest", "limit", "asked"), [(None, 8, [1]), (8, 4, [0, 1]), (8, 16, [1, 2])])
def test_only_what_is_not_recorded_is_asked(longest: int | None, limit: int, asked: list[int]) -> None:
    """With another limit of tokens, an answer is the same when it ended by itself before both limits."""
    rows = [
        row("a", "old a", tokens=5),
        row(
            "c",
            "old c",
            tokens=3 if longest != 8 or limit == 4 else 8,
            finish="stop" if limit != 16 else "length",
        ),
    ]
    recorded = RecordedAnswers(rows, Path())
    model, batches = Model(), []
    generator = RecordedGenerator(lambda: model, lambda key: recorded.answer("rag", 0, key), longest)  # type: ignore[arg-type, return-value]
    chats = [[{"role": "user", "content": text}] for text in "abc"]
    given = generator.generate(chats, limit, lambda batch, done: batches.extend(batch))
    assert model.asked == asked
    assert sorted(batches) == [0, 1, 2]
    assert [c.text for c in given] == [f"new {n}" if n in asked else f"old {'abc'[n]}" for n in range(3)]


def test_model_is_not_loaded_where_all_is_recorded() -> None:
    recorded = RecordedAnswers([row("a", "old a")], Path())

    def load() -> Any:
        raise AssertionError("loaded")

    generator = RecordedGenerator(load, lambda key: recorded.answer("rag", 0, key))
    assert generator.generate([[{"role": "user", "content": "a"}]], 8)[0].text == "old a"
    assert generator.stream([{"role": "user", "content": "a"}], 8).finish().text == "old a"


def test_an_answer_that_the_check_withheld_is_given_again_as_the_model_wrote_it() -> None:
    withheld = row("a", "Not in our papers.") | {"withheld": {"answer": "Old a.", "refused": False}}
    recorded = RecordedAnswers([withheld], Path())
    generator = RecordedGenerator(Model, lambda key: recorded.answer("rag", 0, key))  # type: ignore[arg-type]
    assert generator.generate([[{"role": "user", "content": "a"}]], 8)[0].text == "Old a."


def test_passages_that_rows_share_are_read_back(tmp_path: Path) -> None:
    (tmp_path / "passages").mkdir()
    (tmp_path / "passages" / "0a.txt").write_text("all of it", "utf-8")
    stored = row("x", "old") | {"prompt": [{"role": "user", "content": "{passages/0a.txt} q"}]}
    recorded = RecordedAnswers([stored], tmp_path)
    assert recorded.answer("rag", 0, chat_key([{"role": "user", "content": "all of it q"}])) is stored
