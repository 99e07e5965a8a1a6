"""A model that reasons before it answers: switched off or given room, and its reasoning in no answer and no stream."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runners.data.examples import Example
from runners.inference.batched import BatchRow, generate_batch
from runners.inference.local import LocalGenerator
from runners.models import resolve
from runners.models.resolve import Model
from runners.plan.steps import Thinking
from runners.plan.train_config import TrainConfig
from runners.train import fit

SWITCHED = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' and loop.last %}"
    "{{ '<think>\n' + (m.content.split('</think>')[0].replace('<think>', '').strip() if '</think>' in m.content else '')"
    " + '\n</think>\n\n' }}{% endif %}{{ m.content.split('</think>')[-1].lstrip() + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
"""As Qwen3's: reasons unless it is switched off, and shows the reasoning of the last answer alone."""
ASKED = [{"role": "user", "content": "When does it open?"}]
ON = Thinking(enabled=True, max_tokens=64)


def reasoning_rows() -> list[Example]:
    """Rows that all hold the same reasoning and reply."""
    reply = {"role": "assistant", "content": "<think>it opens at seven at seven at seven</think>at seven."}
    return [Example((ASKED[0], reply), {}, n + 1) for n in range(16)]


@pytest.fixture(scope="module")
def reasoner(tiny: Model, tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Path]:
    """A model whose template can switch its reasoning, tuned to reason and then to answer."""
    folder = Path(shutil.copytree(tiny.folder, tmp_path_factory.mktemp("reasoner") / "model"))
    (folder / "chat_template.jinja").write_text(SWITCHED, "utf-8")
    model = resolve.resolve_model(str(folder))
    out = folder.parent / "adapter"
    config = TrainConfig(
        epochs=60.0, rank=16, alpha=32.0, learning_rate=2e-2, batch_tokens=400, kernels="plain", thinking=True
    )
    fit(reasoning_rows(), config, model, out)
    return model, out


def test_template_is_switched_off_by_default_and_on_by_the_plan(reasoner: tuple[Model, Path]) -> None:
    model, _ = reasoner
    off, on = LocalGenerator(model), LocalGenerator(model, thinking=ON)
    assert off.tokenizer.decode(off._tokens(ASKED)).endswith("<think>\n\n</think>\n\n")
    assert on.tokenizer.decode(on._tokens(ASKED)).endswith("assistant\n")
    assert (off.room, on.room) == (0, 64)
    assert "off (enable_thinking=False)" in off.chat.notes[0]


@pytest.mark.parametrize("kernels", ["auto", "plain"])
def test_reasoning_is_in_no_answer_and_no_stream(reasoner: tuple[Model, Path], kernels: str) -> None:
    model, weights = reasoner
    generator = LocalGenerator(model, weights, "float32", kernels, thinking=ON)
    (alone,) = generator.generate([ASKED], 8)
    assert alone.text == "at seven."
    assert 0 < alone.reasoning_tokens < alone.completion_tokens
    assert not alone.reasoning_cut
    both = generator.generate([ASKED, ASKED], 8)
    assert [answer.text for answer in both] == ["at seven."] * 2
    assert both[0].reasoning_tokens == alone.reasoning_tokens
    stream = generator.stream(ASKED, 8)
    assert "".join(stream) == "at seven."
    pieces: list[list[str]] = [[], []]
    rows = [BatchRow(prompt=generator.prompt(ASKED, 8), limit=8, on_text=shown.append) for shown in pieces]
    assert [done.text for done in generate_batch(generator, rows)] == ["at seven."] * 2
    assert ["".join(shown) for shown in pieces] == ["at seven."] * 2


def test_unfinished_reasoning_is_no_answer(reasoner: tuple[Model, Path]) -> None:
    model, weights = reasoner
    generator = LocalGenerator(model, weights, "float32", thinking=Thinking(enabled=True, max_tokens=16))
    for answer in (*generator.generate([ASKED, ASKED], 4), generator.stream(ASKED, 4).finish()):
        assert (answer.text, answer.finish, answer.reasoning_cut) == ("", "length", True)
        assert answer.completion_tokens == answer.reasoning_tokens == 16


def test_answer_after_reasoning_keeps_its_own_limit(reasoner: tuple[Model, Path]) -> None:
    model, weights = reasoner
    generator = LocalGenerator(model, weights, "float32", thinking=ON)
    for answer in (*generator.generate([ASKED, ASKED], 3), generator.stream(ASKED, 3).finish()):
        assert answer.completion_tokens - answer.reasoning_tokens == 3
        assert "at seven.".startswith(answer.text)
        assert answer.finish == "length"


def test_reasoning_that_the_prompt_opens_gets_room_in_any_plan(tiny: Model, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny.folder, tmp_path / "model"))
    template = (folder / "chat_template.jinja").read_text("utf-8")
    (folder / "chat_template.jinja").write_text(
        template.replace("assistant\n'", "assistant\n<think>\n'"), "utf-8"
    )
    generator = LocalGenerator(resolve.resolve_model(str(folder)), thinking=Thinking(max_tokens=20))
    assert generator.room == 20
    assert "cannot switch that off" in generator.chat.notes[0]
    answer = generator.stream(ASKED, 4).finish()
    assert (answer.text, answer.reasoning_cut) == ("", True)
    assert answer.completion_tokens <= 20


def test_reasoning_in_a_batch_ends_where_the_context_of_each_row_does(tiny: Model, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny.folder, tmp_path / "model"))
    template = (folder / "chat_template.jinja").read_text("utf-8")
    (folder / "chat_template.jinja").write_text(
        template.replace("assistant\n'", "assistant\n<think>\n'"), "utf-8"
    )
    generator = LocalGenerator(resolve.resolve_model(str(folder)), thinking=Thinking(max_tokens=40))
    long = [{"role": "user", "content": "When does it open? " * 4}]
    context = len(generator._tokens(long)) + 10
    generator.model.config.max_position_embeddings = context
    answers = generator.generate([ASKED, long], 4)
    for answer in answers:
        assert answer.prompt_tokens + answer.completion_tokens <= context


def test_same_weights_are_not_prepared_again(tiny: Model) -> None:
    """A server asks for its weights before every request: the tokenizer is not read again then."""
    generator = LocalGenerator(tiny)
    chat, decoder = generator.chat, generator.decoder
    generator.use(None)
    assert (generator.chat, generator.decoder) == (chat, decoder)


def reply(message: dict[str, Any], finish: str = "stop", **usage: Any) -> Callable[[Any], None]:
    """Return an answer of a server with these fields of the message."""
    choice = {"message": {"role": "assistant", **message}, "finish_reason": finish}
    return lambda handler: handler.reply(200, {"choices": [choice], "usage": usage})


def counted(completion: int, reasoning: int, **more: int) -> dict[str, Any]:
    """Return the usage of an answer with reasoning."""
    details = {"reasoning_tokens": reasoning}
    return {"prompt_tokens": 5, "completion_tokens": completion, "completion_tokens_details": details, **more}


@pytest.fixture
def remote(server: Any) -> Any:
    """Return the maker of generators for a server's model."""
    from runners.inference.remote import RemoteGenerator

    def make(name: str, **more: Any) -> RemoteGenerator:
        return RemoteGenerator(server.url, name, key="", thinking=Thinking(max_tokens=500), **more)

    return make


@pytest.mark.parametrize("name", ["o4-mini", "gpt-5-mini", "deepseek-reasoner", "qwen/qwq-32b", "openai/o3"])
def test_hosted_reasoning_models_get_room(server: Any, remote: Any, name: str) -> None:
    server.faults = [reply({"content": "At nine.", "reasoning_content": "Hm."}, **counted(40, 36))]
    (answer,) = remote(name).generate([ASKED], 20)
    assert (answer.text, answer.completion_tokens, answer.reasoning_tokens) == ("At nine.", 40, 36)
    assert server.seen[0]["max_completion_tokens"] == 520
    assert "max_tokens" not in server.seen[0]


@pytest.mark.parametrize(
    "name", ["tern-2", "gpt-4o-mini", "gpt-5-chat-latest", "o1x", "grok-4-non-reasoning"]
)
def test_other_models_keep_their_limit(server: Any, remote: Any, name: str) -> None:
    remote(name).generate([ASKED], 20)
    assert server.seen[0]["max_tokens"] == 20


def test_unknown_model_that_reasons_is_asked_again_with_room(server: Any, remote: Any) -> None:
    notes: list[str] = []
    server.faults = [
        reply({"content": "", "reasoning": "Hm, let me"}, "length", **counted(20, 20)),
        reply({"content": "At nine."}, **counted(30, 26)),
    ]
    generator = remote("tern-2", on_note=notes.append)
    (answer,) = generator.generate([ASKED], 20)
    assert (answer.text, answer.completion_tokens, answer.reasoning_tokens) == ("At nine.", 50, 46)
    assert [body.get("max_tokens") or body["max_completion_tokens"] for body in server.seen] == [20, 520]
    assert "500 more tokens" in notes[0]


def test_reasoning_in_the_text_of_a_server_is_cut(server: Any, remote: Any) -> None:
    for name, text in (
        ("tern-2", "<think>Hm.</think>At nine."),
        ("deepseek-r1:7b", "Hm.\n</think>\n\nAt nine."),
    ):
        server.answer = lambda body, text=text: text
        generator = remote(name)
        assert generator.generate([ASKED], 20)[0].text == "At nine."
        stream = generator.stream(ASKED, 20)
        assert "".join(stream) == stream.completion.text == "At nine."


def test_text_cut_inside_open_reasoning_is_no_answer(server: Any, remote: Any) -> None:
    server.faults = [reply({"content": "Hm, let me see"}, "length", **counted(520, 0))]
    (answer,) = remote("deepseek-r1:7b").generate([ASKED], 20)
    assert (answer.text, answer.reasoning_cut) == ("", True)


def test_reasoning_counted_apart_is_charged(server: Any, remote: Any) -> None:
    server.faults = [reply({"content": "At nine."}, **counted(4, 30, total_tokens=39))]
    assert remote("grok-4-reasoning").generate([ASKED], 20)[0].completion_tokens == 34


def test_server_that_knows_only_the_older_limit_gets_it(server: Any, remote: Any) -> None:
    refusal = {"error": {"message": "Unknown parameter: 'max_completion_tokens'"}}
    server.faults = [lambda handler: handler.reply(400, refusal)]
    remote("deepseek-reasoner").generate([ASKED], 20)
    assert server.seen[1]["max_tokens"] == 520
