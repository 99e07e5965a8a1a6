"""Models whose template has no system role, or that have no template, are asked as they were trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from rag.errors import BadInput
from runners.arms.prompts import build_messages, training_row
from runners.data.examples import Example
from runners.inference.local import LocalGenerator
from runners.models import resolve
from runners.models.resolve import Model
from runners.plan.data import Prompts
from runners.plan.train_config import TrainConfig
from runners.tokenization.chat_template import PLAIN_TEMPLATE, ChatTokenizer
from runners.train import fit

NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "{{ '<|im_start|>' + ('model' if m.role == 'assistant' else m.role) + '\n' + m.content | trim + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>model\n' }}{% endif %}"
)
PROMPTS = Prompts(system="You answer for the ferry.")
ROWS = [
    Example(
        (
            {"role": "user", "content": f"When does pier {n} open?"},
            {"role": "assistant", "content": "At nine."},
        )
    )
    for n in range(8)
]


def variant(tiny: Model, folder: Path, template: str) -> Model:
    """Return the tiny model with another template, "" for none."""
    copy = Path(shutil.copytree(tiny.folder, folder))
    (copy / "chat_template.jinja").unlink()
    if template:
        (copy / "chat_template.jinja").write_text(template, "utf-8")
    return resolve.resolve_model(str(copy))


@pytest.mark.parametrize("template", [NO_SYSTEM, ""], ids=["no-system", "none"])
def test_arm_is_asked_with_the_tokens_it_was_trained_on(tiny: Model, tmp_path: Path, template: str) -> None:
    model = variant(tiny, tmp_path / "model", template)
    rows = [training_row(PROMPTS, row) for row in ROWS]
    fit(rows, TrainConfig(epochs=1.0, rank=2, alpha=4.0, batch_tokens=200), model, tmp_path / "out")
    generator = LocalGenerator(model, tmp_path / "out", "float32")
    chat = build_messages(PROMPTS, ROWS[0].question)
    prompt = generator.prompt(chat, 4)
    assert list(ChatTokenizer(model.folder).example(rows[0]).ids[: len(prompt)]) == prompt
    assert generator.generate([chat], 4)[0].prompt_tokens == len(prompt)
    follow_up = build_messages(PROMPTS, "And pier 2?", history=ROWS[0].messages, shots=ROWS[1:3])
    assert generator.stream(follow_up, 4).finish().completion_tokens > 0
    written = (tmp_path / "out" / "chat_template.jinja").read_text("utf-8")
    assert written.rstrip() == (template or PLAIN_TEMPLATE).rstrip()
    assert generator.chat.template.rstrip() == written.rstrip()


def test_chat_that_the_template_refuses_is_a_message(tiny: Model, tmp_path: Path) -> None:
    generator = LocalGenerator(variant(tiny, tmp_path / "model", NO_SYSTEM))
    chat: list[dict[str, Any]] = [
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Hi."},
    ]
    with pytest.raises(BadInput, match="refuses this chat: Conversation roles must alternate"):
        generator.generate([chat], 4)


def test_answer_ends_with_the_token_of_the_template_where_the_model_names_another(
    tiny: Model, tmp_path: Path
) -> None:
    """As a base model with a chat template does (Qwen2.5): its own end token is not the one that a turn ends with."""
    folder = Path(shutil.copytree(tiny.folder, tmp_path / "model"))
    for name, value in (("tokenizer_config.json", "<|endoftext|>"), ("generation_config.json", 0)):
        file = folder / name
        settings = json.loads(file.read_text("utf-8")) if file.is_file() else {}
        file.write_text(json.dumps(settings | {"eos_token" + "_id" * (value == 0): value}), "utf-8")
    model = resolve.resolve_model(str(folder))
    config = TrainConfig(
        epochs=60.0, rank=16, alpha=32.0, learning_rate=2e-2, batch_tokens=400, kernels="plain"
    )
    fit([training_row(PROMPTS, row) for row in ROWS], config, model, tmp_path / "out")
    chat = build_messages(PROMPTS, ROWS[0].question)
    answer = LocalGenerator(model, tmp_path / "out", "float32").generate([chat], 12)[0]
    assert answer.finish == "stop"
