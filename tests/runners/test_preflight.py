"""Tokens, the learnt mask, and what stops a run before it starts."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from rag.errors import BadInput
from runners.chat import PLAIN_TEMPLATE, Chat
from runners.data import Example
from runners.models import Model
from runners.preflight import inspect, lines
from runners.shown import pieces
from runners.tuning import TrainConfig

TALK = (
    {"role": "user", "content": "Is the café open?"},
    {"role": "assistant", "content": "Yes — until ten."},
    {"role": "user", "content": "Thanks"},
    {"role": "assistant", "content": "Anything else?"},
)


def test_tokens_equal_apply_chat_template(tiny: Model, examples: tuple[Example, ...]) -> None:
    from runners.load import load_tokenizer

    chat, tokenizer = Chat(tiny.folder), load_tokenizer(tiny.folder)
    for example in (*examples[:5], Example(TALK)):
        turns = [dict(m) for m in example.messages]
        assert list(chat.example(example).ids) == tokenizer.apply_chat_template(turns, return_dict=False)
        rendered = tokenizer.apply_chat_template(turns[:-1], tokenize=False, add_generation_prompt=True)
        assert chat.render(turns[:-1], prompt=True) == rendered


def test_every_assistant_turn_is_learnt_with_its_end(tiny: Model) -> None:
    chat = Chat(tiny.folder)
    encoded = chat.example(Example(TALK))
    shown = pieces(encoded, chat)
    assert [text for text, learnt in shown if learnt] == [
        "Yes — until ten.<|im_end|>",
        "Anything else?<|im_end|>",
    ]
    assert encoded.ids[encoded.learnt[-1]] in chat.eos_ids
    assert 0 not in encoded.learnt


def test_pad_is_not_the_end_token(tiny: Model) -> None:
    assert Chat(tiny.folder).pad == "<|endoftext|>"


def test_a_model_without_template_gets_the_plain_one(tiny: Model, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny.folder, tmp_path / "bare")
    (folder / "chat_template.jinja").unlink()
    chat = Chat(folder)
    assert chat.own_template == ""
    shown = pieces(chat.example(Example(TALK[:2])), chat)
    assert [t for t, learnt in shown if learnt] == ["Yes — until ten.<|im_end|>"]
    _, report = inspect([Example(TALK)], chat, TrainConfig())
    assert any("no chat template" in w for w in report.warnings)
    assert "assistant" in PLAIN_TEMPLATE


def test_a_template_that_refuses_names_the_line(tiny: Model, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny.folder, tmp_path / "strict")
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no system role') }}", encoding="utf-8")
    with pytest.raises(BadInput, match=r"example on line 7.*no system role"):
        Chat(folder).example(Example(TALK, {}, 7))


def test_good_rows_pass_and_are_shown(tiny: Model, examples: tuple[Example, ...]) -> None:
    told = list(lines(examples, TrainConfig(), tiny, show=1))
    assert "⟦Yes, the north pier opens at six. Shall I note it?<|im_end|>⟧" in told[1]
    assert told[-1] == "nothing stands in the way"


def test_long_rows_are_left_out_then_refused(tiny: Model, examples: tuple[Example, ...]) -> None:
    chat = Chat(tiny.folder)
    lengths = sorted(len(chat.example(e).ids) for e in examples)
    used, report = inspect(examples, chat, TrainConfig(max_tokens=lengths[-1]))
    assert (len(used), report.too_long, report.stops) == (36, (), ())
    long = replace(
        examples[0], messages=(*examples[0].messages[:2], {"role": "assistant", "content": "word " * 400})
    )
    used, report = inspect([*examples, long], chat, TrainConfig(max_tokens=lengths[-1]))
    assert len(used) == 36
    assert any("1 rows over max_tokens" in w for w in report.warnings)
    _, report = inspect(examples, chat, TrainConfig(max_tokens=lengths[0]))
    with pytest.raises(BadInput, match="rows are longer than max_tokens"):
        report.require()


def test_stoppers(tiny: Model, tmp_path: Path, examples: tuple[Example, ...]) -> None:
    chat = Chat(tiny.folder)
    planted = replace(
        examples[0], messages=({"role": "user", "content": "x<|im_end|>y"}, examples[0].messages[-1])
    )
    _, report = inspect([planted], chat, TrainConfig())
    assert "control tokens" in report.stops[0]
    _, report = inspect([], chat, TrainConfig())
    assert report.stops == ("there are no rows",)
    folder = shutil.copytree(tiny.folder, tmp_path / "endless")
    template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    (folder / "chat_template.jinja").write_text(template.replace("+ '<|im_end|>'", ""), encoding="utf-8")
    _, report = inspect(examples, Chat(folder), TrainConfig())
    assert "lack the end token" in report.stops[0]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("method", "prefix"),
        ("epochs", 0),
        ("learning_rate", -1.0),
        ("rank", 0),
        ("dropout", 1.0),
        ("schedule", "x"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(key: str, value: object) -> None:
    with pytest.raises(BadInput, match=key):
        TrainConfig(**{key: value})  # type: ignore[arg-type]
