"""`train --show`: rows with their target tokens, in colour on a terminal and with marks elsewhere."""

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


def shown_rows(chat: ChatTokenizer, console: Console, n: int = 3, max_tokens: int | None = None) -> str:
    """Return what is printed of four rows."""
    rows = [chat.example(Example(TURNS, {}, line)) for line in range(1, 5)]
    assert isinstance(console.file, io.StringIO)
    show_training_rows(rows, chat, n, max_tokens, console)
    return console.file.getvalue()


def test_rows_without_terminal_mark_targets(chat: ChatTokenizer) -> None:
    output = shown_rows(chat, Console(file=io.StringIO(), width=20))
    assert output.count("--- line") == 3
    assert output.startswith(
        "--- line 1: 41 tokens, 6 learnt\nuser:\nWhere [is] it?\n\nassistant:\n⟦Here.</s>⟧\n"
    )
    assert "\x1b" not in output


def test_rows_on_terminal_are_coloured(chat: ChatTokenizer) -> None:
    output = shown_rows(
        chat, Console(file=io.StringIO(), force_terminal=True, color_system="standard", no_color=False), 1
    )
    assert "\x1b[32mHere.\x1b[0m\x1b[7;32m</s>\x1b[0m" in output
    assert "\x1b[2muser:" in output
    assert "⟦" not in output
    assert "not learnt" in output


def test_rows_honour_no_color(chat: ChatTokenizer) -> None:
    output = shown_rows(chat, Console(file=io.StringIO(), force_terminal=True, no_color=True), 1)
    assert "⟦Here.</s>⟧" in output
    assert "\x1b" not in output


def test_too_long_row_is_marked(chat: ChatTokenizer) -> None:
    output = shown_rows(chat, Console(file=io.StringIO()), 1, max_tokens=30)
    assert "(over max_tokens 30: skipped, not cut)" in output


def test_row_names_its_file(chat: ChatTokenizer) -> None:
    console = Console(file=io.StringIO())
    show_training_rows([chat.example(Example(TURNS, {}, 7, "part/a.jsonl"))], chat, 1, None, console)
    assert console.file.getvalue().startswith("--- part/a.jsonl:7:")  # type: ignore[attr-defined]
