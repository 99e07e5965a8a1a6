"""Token cache of a resumed run: equal to encoding again, and never that of other rows or a damaged file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from rag.errors import BadInput
from runners.data.examples import Example
from runners.models.resolve import Model
from runners.tokenization.chat_template import ChatTokenizer, EncodedRow
from runners.tokenization.token_cache import CACHED_ROWS_FILE, TokenCache, encode_or_reason


class Counting(ChatTokenizer):
    """A chat that counts what it tokenises."""

    made = 0

    def example(self, example: Example, turns: str = "all") -> EncodedRow:
        self.made += 1
        return super().example(example, turns)


def through(
    rows: Sequence[Example], chat: ChatTokenizer, folder: Path, turns: str = "all"
) -> list[EncodedRow | BadInput]:
    """Return the tokens as a run would take and keep them."""
    tokens = TokenCache(folder, min_rows=1)
    found = tokens.encoded(rows, chat, turns)
    tokens.keep()
    return found


@pytest.fixture
def chat(tiny: Model) -> Counting:
    return Counting(tiny.folder)


def test_second_start_reads_cache(chat: Counting, examples: Sequence[Example], tmp_path: Path) -> None:
    first = through(examples, chat, tmp_path)
    assert first == [chat.example(e) for e in examples]
    chat.made = 0
    moved = [replace(e, line=e.line + 5) for e in examples]
    second = through(moved, chat, tmp_path)
    assert chat.made == 0
    assert [replace(row, line=row.line - 5) for row in second if isinstance(row, EncodedRow)] == first


def test_other_rows_turns_or_templates_are_encoded_again(
    chat: Counting, examples: Sequence[Example], tmp_path: Path
) -> None:
    through(examples, chat, tmp_path)
    for rows, turns in ((examples[1:], "all"), (examples[::-1], "all"), (examples, "last")):
        chat.made = 0
        found = through(rows, chat, tmp_path, turns)
        assert chat.made == len(rows)
        assert found == [chat.example(e, turns) for e in rows]
    chat.own_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    chat.made = 0
    through(examples, chat, tmp_path, "last")
    assert chat.made == len(examples)


@pytest.mark.parametrize("place", [0, 40, -1])
def test_damaged_cache_is_replaced(
    chat: Counting, examples: Sequence[Example], tmp_path: Path, place: int
) -> None:
    expected = through(examples, chat, tmp_path)
    file = tmp_path / CACHED_ROWS_FILE
    whole = file.read_bytes()
    spoilt = bytearray(whole)
    spoilt[place] ^= 1
    for content in (bytes(spoilt), whole[: len(whole) // 2], b""):
        file.write_bytes(content)
        for made in (len(examples), 0):
            chat.made = 0
            assert through(examples, chat, tmp_path) == expected
            assert chat.made == made


def test_refused_rows_stay_refused(chat: Counting, examples: Sequence[Example], tmp_path: Path) -> None:
    calls = {"role": "assistant", "content": "One moment.", "tool_calls": []}
    refused = Example(({"role": "user", "content": "Hello?"}, calls), {}, 3)
    rows = [examples[0], refused, examples[1]]
    first = through(rows, chat, tmp_path)
    assert [isinstance(row, BadInput) for row in first] == [False, True, False]
    second = through(rows, chat, tmp_path)
    assert [str(row) for row in second] == [str(row) for row in first]


def test_few_rows_write_no_cache(chat: Counting, examples: Sequence[Example], tmp_path: Path) -> None:
    tokens = TokenCache(tmp_path)
    assert tokens.encoded(examples, chat) == encode_or_reason(examples, chat)
    tokens.keep()
    assert not list(tmp_path.iterdir())
