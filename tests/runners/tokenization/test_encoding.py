"""Packing of raw texts: every token is a target exactly once, and texts are cut only where necessary."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.errors import BadInput
from runners.data.examples import Example
from runners.models.resolve import Model
from runners.tokenization.chat_template import ChatTokenizer
from runners.tokenization.encoding import encode_examples, pack_texts


def text(words: str, line: int = 1) -> Example:
    """One raw text."""
    return Example(({"role": "assistant", "content": words},), {}, line)


@pytest.fixture(scope="module")
def chat(tiny: Model) -> ChatTokenizer:
    """The tiny model's tokenizer."""
    return ChatTokenizer(tiny.folder)


@settings(max_examples=150)
@given(
    texts=st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<"), min_size=1), max_size=8
    ),
    room=st.integers(2, 60),
)
def test_every_token_is_a_target_once_in_order(chat: ChatTokenizer, texts: Sequence[str], room: int) -> None:
    packed = pack_texts([text(t) for t in texts], chat, room)
    end = chat.tokenizer.token_to_id("<|im_end|>")
    whole = [token for t in texts for token in (*chat.encode(t), end)]
    assert [row.ids[i] for row in packed.rows for i in row.learnt] == whole
    assert packed.tokens == len(whole)
    assert packed.texts == len(texts)
    assert all(len(row.ids) <= room and row.raw and 0 not in row.learnt for row in packed.rows)
    longer = [t for t in texts if len(chat.encode(t)) + 1 > room - 1]
    assert packed.cut == len(longer)


@settings(max_examples=150)
@given(sizes=st.lists(st.integers(1, 12), min_size=1, max_size=12))
def test_fitting_text_is_never_cut_and_pieces_are_filled(chat: ChatTokenizer, sizes: list[int]) -> None:
    packed = pack_texts([text("ab" * size, n) for n, size in enumerate(sizes)], chat, 32)
    end = chat.tokenizer.token_to_id("<|im_end|>")
    assert all(row.ids[0] == row.ids[-1] == end for row in packed.rows)
    starts = [row.line for row in packed.rows]
    assert starts == sorted(set(starts))
    for before, after in zip(packed.rows, packed.rows[1:], strict=False):
        first = after.ids.index(end, 1)
        assert len(before.ids) + first > 32  # the next text had no room


def test_long_text_continues_in_next_piece(chat: ChatTokenizer) -> None:
    packed = pack_texts([text("abc " * 40), text("next", 2)], chat, 50)
    assert packed.cut == 1
    for before, after in zip(packed.rows, packed.rows[1:], strict=False):
        assert after.ids[0] == before.ids[-1]
    assert packed.rows[0].note.startswith("piece 1 of")
    assert packed.rows[-1].note.endswith("2 texts in one piece")


def test_first_token_of_tokenizer_is_before_every_text(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing

    folder = tmp_path_factory.mktemp("bos")
    tokenizer = Tokenizer(WordLevel({"<s>": 0, "</s>": 1, "a": 2, "b": 3, "?": 4}, unk_token="?"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "</s>", "bos_token": "<s>"}', "utf-8")
    (row,) = pack_texts([text("a b"), text("b")], ChatTokenizer(folder), 16).rows
    assert row.ids == (0, 2, 3, 1, 0, 3, 1)
    assert row.learnt == (1, 2, 3, 5, 6)
    (folder / "tokenizer_config.json").write_text("{}", "utf-8")
    with pytest.raises(BadInput, match="no end token to put between texts"):
        pack_texts([text("a")], ChatTokenizer(folder), 16)


def test_chats_and_texts_are_encoded_together(chat: ChatTokenizer, examples: Sequence[Example]) -> None:
    rows = encode_examples([text("Some replay text."), *examples[:3]], chat, 64)
    assert [row.raw for row in rows] == [False, False, False, True]
    assert rows[0] == chat.example(examples[0])
