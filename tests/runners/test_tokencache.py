"""Tokens kept for a resumed run: the same as made anew, and never those of other rows or a damaged file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from rag.errors import BadInput
from runners import tokencache
from runners.chat import Chat, Encoded
from runners.data import Example
from runners.models import Model


class Counting(Chat):
    """A chat that counts what it tokenises."""

    made = 0

    def example(self, example: Example, turns: str = "all") -> Encoded:
        self.made += 1
        return super().example(example, turns)


@pytest.fixture
def chat(tiny: Model) -> Counting:
    return Counting(tiny.folder)


def test_the_second_time_nothing_is_tokenised(
    chat: Counting, examples: Sequence[Example], tmp_path: Path
) -> None:
    first = tokencache.encoded(examples, chat, folder=tmp_path, least=1)
    assert first == [chat.example(e) for e in examples]
    chat.made = 0
    moved = [replace(e, line=e.line + 5) for e in examples]
    second = tokencache.encoded(moved, chat, folder=tmp_path, least=1)
    assert chat.made == 0
    assert [replace(row, line=row.line - 5) for row in second if isinstance(row, Encoded)] == first


def test_other_rows_turns_or_templates_are_made_anew(
    chat: Counting, examples: Sequence[Example], tmp_path: Path
) -> None:
    tokencache.encoded(examples, chat, folder=tmp_path, least=1)
    for rows, turns in ((examples[1:], "all"), (examples[::-1], "all"), (examples, "last")):
        chat.made = 0
        found = tokencache.encoded(rows, chat, turns, tmp_path, least=1)
        assert chat.made == len(rows)
        assert found == [chat.example(e, turns) for e in rows]
    chat.own_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    chat.made = 0
    tokencache.encoded(examples, chat, "last", tmp_path, least=1)
    assert chat.made == len(examples)


@pytest.mark.parametrize("place", [0, 40, -1])
def test_a_damaged_file_is_replaced(
    chat: Counting, examples: Sequence[Example], tmp_path: Path, place: int
) -> None:
    expected = tokencache.encoded(examples, chat, folder=tmp_path, least=1)
    file = tmp_path / tokencache.FILE
    whole = file.read_bytes()
    spoilt = bytearray(whole)
    spoilt[place] ^= 1
    for content in (bytes(spoilt), whole[: len(whole) // 2], b""):
        file.write_bytes(content)
        for made in (len(examples), 0):
            chat.made = 0
            assert tokencache.encoded(examples, chat, folder=tmp_path, least=1) == expected
            assert chat.made == made


def test_what_the_template_refuses_stays_refused(
    chat: Counting, examples: Sequence[Example], tmp_path: Path
) -> None:
    calls = {"role": "assistant", "content": "One moment.", "tool_calls": []}
    refused = Example(({"role": "user", "content": "Hello?"}, calls), {}, 3)  # type: ignore[arg-type]
    rows = [examples[0], refused, examples[1]]
    first = tokencache.encoded(rows, chat, folder=tmp_path, least=1)
    assert [isinstance(row, BadInput) for row in first] == [False, True, False]
    second = tokencache.encoded(rows, chat, folder=tmp_path, least=1)
    assert [str(row) for row in second] == [str(row) for row in first]


def test_few_rows_or_no_folder_leave_no_file(
    chat: Counting, examples: Sequence[Example], tmp_path: Path
) -> None:
    assert tokencache.encoded(examples, chat) == tokencache.encoded(examples, chat, folder=tmp_path)
    assert not list(tmp_path.iterdir())
