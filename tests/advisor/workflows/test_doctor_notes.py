"""Doctor says how chats are written for a model on this machine."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer, models

from advisor.workflows.doctor import chat_notes


def test_base_model_without_template_and_reasoning_model_are_said(tmp_path: Path) -> None:
    Tokenizer(models.WordLevel({"a": 0, "?": 1}, unk_token="?")).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "?"}), "utf-8")
    assert "no chat template" in chat_notes(str(tmp_path))[0]
    template = (
        "{% for m in messages %}{{ m.role + m.content }}{% endfor %}"
        "{% if add_generation_prompt and not enable_thinking %}<think></think>{% endif %}"
    )
    (tmp_path / "chat_template.jinja").write_text(template, "utf-8")
    assert "can reason before it answers: that is off (enable_thinking=False)" in chat_notes(str(tmp_path))[0]
    assert chat_notes("no-such-model") == []
