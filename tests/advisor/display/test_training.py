"""`--show`: rows with their loss mask, in colour on a terminal and with marks elsewhere."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from advisor.display.training import show_training_rows
from runners.data.examples import Example
from runners.tokenization.chat_template import ChatTokenizer

TURNS = ({"role": "user", "content": "Where [is] it?"}, {"role": "assistant", "content": "Here."})


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    """A tokenizer of bytes with the plain template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("bytes")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={t: n for n, t in enumerate(["</s>", *letters])}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["</s>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}), "utf-8")
    return ChatTokenizer(folder)


def drawn(chat: ChatTokenizer, console: Console, n: int = 3, max_tokens: int | None = None) -> str:
    """What is printed of four rows."""
    rows = [chat.example(Example(TURNS, {}, line)) for line in range(1, 5)]
    assert isinstance(console.file, io.StringIO)
    show_training_rows(rows, chat, n, max_tokens, console)
    return console.file.getvalue()


def test_without_a_terminal_the_learnt_part_is_marked(chat: ChatTokenizer) -> None:
    said = drawn(chat, Console(file=io.StringIO(), width=20))
    assert said.count("--- line") == 3
    assert said.startswith(
        "--- line 1: 41 tokens, 6 learnt\nuser:\nWhere [is] it?\n\nassistant:\n⟦Here.</s>⟧\n"
    )
    assert "\x1b" not in said


def test_on_a_terminal_it_is_in_colour(chat: ChatTokenizer) -> None:
    said = drawn(
        chat, Console(file=io.StringIO(), force_terminal=True, color_system="standard", no_color=False), 1
    )
    assert "\x1b[32mHere.\x1b[0m\x1b[7;32m</s>\x1b[0m" in said
    assert "\x1b[2muser:" in said
    assert "⟦" not in said
    assert "not learnt" in said


def test_no_color_is_honoured(chat: ChatTokenizer) -> None:
    said = drawn(chat, Console(file=io.StringIO(), force_terminal=True, no_color=True), 1)
    assert "⟦Here.</s>⟧" in said
    assert "\x1b" not in said


def test_a_row_that_is_too_long_is_marked(chat: ChatTokenizer) -> None:
    said = drawn(chat, Console(file=io.StringIO()), 1, max_tokens=30)
    assert "(over max_tokens 30: left out, not cut)" in said


def test_a_folder_of_the_examples_is_named(chat: ChatTokenizer) -> None:
    console = Console(file=io.StringIO())
    show_training_rows([chat.example(Example(TURNS, {}, 7, "part/a.jsonl"))], chat, 1, None, console)
    assert console.file.getvalue().startswith("--- part/a.jsonl:7:")  # type: ignore[attr-defined]
