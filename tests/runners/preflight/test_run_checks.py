"""Encoding of rows, target tokens, and the checks that stop a run before it starts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rag.errors import BadInput, CannotRun
from runners.data.examples import Example
from runners.models.resolve import Model
from runners.plan.train_config import TrainConfig
from runners.preflight import data_checks
from runners.preflight.machine_checks import context_check
from runners.preflight.report import ACCEPTABLE_CODES, CHECK_CODES, CHECK_LEVELS, PreflightCheck
from runners.preflight.run_checks import PreflightReport, inspect_rows, run_preflight
from runners.tokenization.chat_template import PLAIN_TEMPLATE, ChatTokenizer, EncodedRow
from runners.tokenization.preview import target_runs

CONVERSATION = (
    {"role": "user", "content": "Is the café open?"},
    {"role": "assistant", "content": "Yes — until ten."},
    {"role": "user", "content": "Thanks"},
    {"role": "assistant", "content": "Anything else?"},
)


def test_tokens_equal_apply_chat_template(tiny: Model, examples: tuple[Example, ...]) -> None:
    from runners.inference.weights import load_tokenizer

    chat, tokenizer = ChatTokenizer(tiny.folder), load_tokenizer(tiny.folder)
    for example in (*examples[:5], Example(CONVERSATION)):
        turns = [dict(m) for m in example.messages]
        assert list(chat.example(example).ids) == tokenizer.apply_chat_template(turns, return_dict=False)
        rendered = tokenizer.apply_chat_template(turns[:-1], tokenize=False, add_generation_prompt=True)
        assert chat.render(turns[:-1], prompt=True) == rendered


def test_every_assistant_turn_and_its_end_token_is_a_target(tiny: Model) -> None:
    chat = ChatTokenizer(tiny.folder)
    encoded = chat.example(Example(CONVERSATION))
    shown = target_runs(encoded, chat)
    assert [text for text, learnt in shown if learnt] == [
        "Yes — until ten.<|im_end|>",
        "Anything else?<|im_end|>",
    ]
    assert encoded.ids[encoded.learnt[-1]] in chat.eos_ids
    assert 0 not in encoded.learnt


def test_padding_token_is_not_the_end_token(tiny: Model) -> None:
    assert ChatTokenizer(tiny.folder).pad == "<|endoftext|>"


def test_model_without_template_uses_the_plain_one_with_warning(tiny: Model, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny.folder, tmp_path / "bare")
    (folder / "chat_template.jinja").unlink()
    chat = ChatTokenizer(folder)
    assert chat.own_template == ""
    shown = target_runs(chat.example(Example(CONVERSATION[:2])), chat)
    assert [t for t, learnt in shown if learnt] == ["Yes — until ten.<|im_end|>"]
    _, report = inspect_rows([Example(CONVERSATION)], chat, TrainConfig())
    assert any("no chat template" in w for w in report.warnings)
    assert "assistant" in PLAIN_TEMPLATE


def test_template_error_names_the_line(tiny: Model, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny.folder, tmp_path / "strict")
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no system role') }}", encoding="utf-8")
    with pytest.raises(BadInput, match=r"example on line 7.*no system role"):
        ChatTokenizer(folder).example(Example(CONVERSATION, {}, 7))


Rows = tuple[Example, ...]


def chat_of(question: str, answer: str, line: int = 1, **more: Any) -> Example:
    """Return a row of one question and its answer."""
    turns = ({"role": "user", "content": question}, {"role": "assistant", "content": answer, **more})
    return Example(turns, {}, line)


def check_of(report: PreflightReport, code: str) -> PreflightCheck:
    """Return the check of this code."""
    return next(check for check in report.checks if check.code == code)


@pytest.fixture
def changed(tiny: Model, tmp_path: Path) -> Callable[..., ChatTokenizer]:
    """Return a factory of the tiny model's tokenizer with its template or settings changed."""

    def make(*template: tuple[str, str], **settings: Any) -> ChatTokenizer:
        folder = shutil.copytree(tiny.folder, tmp_path / "changed")
        file = folder / "chat_template.jinja"
        for old, new in template:
            text = file.read_text(encoding="utf-8")
            assert old in text
            file.write_text(text.replace(old, new), encoding="utf-8")
        for name, keys in settings.items():
            file = folder / f"{name}.json"
            file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **keys}), encoding="utf-8")
        return ChatTokenizer(folder)

    return make


def test_good_rows_pass_all_checks(tiny: Model, examples: Rows) -> None:
    used, report = inspect_rows(examples, ChatTokenizer(tiny.folder), TrainConfig())
    assert (len(used), report.used, report.left_out) == (36, 36, 0)
    assert {check.level for check in report.checks} == {"ok"}
    assert report.exit_code == 0
    assert check_of(report, "PF001").text.startswith("36 of 36 rows used")
    as_json = report.to_json()
    assert as_json["ok"] is True
    assert set(as_json["checks"][0]) == {"code", "title", "level", "text", "rows", "next"}


def test_long_rows_warn_when_few_and_stop_when_many(tiny: Model, examples: Rows) -> None:
    chat = ChatTokenizer(tiny.folder)
    lengths = sorted(len(chat.example(e).ids) for e in examples)
    long = replace(chat_of("Tell me", "word " * 400, 77))
    used, report = inspect_rows([*examples, long], chat, TrainConfig(max_tokens=lengths[-1]))
    check = check_of(report, "PF002")
    assert (len(used), report.too_long, report.left_out) == (36, (77,), 1)
    assert (check.level, check.rows) == ("warn", (77,))
    _, report = inspect_rows(examples, chat, TrainConfig(max_tokens=lengths[0]))
    check = check_of(report, "PF002")
    assert (check.level, len(check.rows)) == ("stop", 5)
    assert f"within {lengths[int(0.95 * 35)]} tokens" in check.next
    with pytest.raises(BadInput, match="longer than max_tokens"):
        report.require()


def test_rows_without_targets_warn_when_few_and_stop_when_many(tiny: Model, examples: Rows) -> None:
    masked = chat_of("Hello?", "Hello.", 90, weight=0)
    used, report = inspect_rows([*examples, masked], ChatTokenizer(tiny.folder), TrainConfig())
    assert (len(used), check_of(report, "PF003").level, check_of(report, "PF003").rows) == (36, "warn", (90,))
    _, report = inspect_rows([masked], ChatTokenizer(tiny.folder), TrainConfig())
    assert check_of(report, "PF003").level == "stop"
    assert check_of(report, "PF001").level == "stop"
    assert report.exit_code == 3


def test_no_rows_stop_the_run(tiny: Model) -> None:
    _, report = inspect_rows([], ChatTokenizer(tiny.folder), TrainConfig())
    assert report.stops == ("there are no rows",)


def test_low_share_of_target_tokens_warns(tiny: Model) -> None:
    _, report = inspect_rows(
        [chat_of("word " * 300, "Yes")], ChatTokenizer(tiny.folder), TrainConfig(max_tokens=4096)
    )
    assert check_of(report, "PF001").level == "warn"


def test_answer_without_end_token_stops(changed: Callable[..., ChatTokenizer], examples: Rows) -> None:
    _, report = inspect_rows(examples, changed(("+ '<|im_end|>'", "")), TrainConfig())
    check = check_of(report, "PF004")
    assert check.level == "stop"
    assert "36 rows do not end with the end token" in check.text
    assert check.rows == (1, 2, 3, 4, 5)


def test_end_token_as_padding_is_replaced(changed: Callable[..., ChatTokenizer], examples: Rows) -> None:
    chat = changed(tokenizer_config={"pad_token": "<|im_end|>"})
    _, report = inspect_rows(examples, chat, TrainConfig())
    check = check_of(report, "PF005")
    assert chat.pad == "<|endoftext|>"
    assert (check.level, "the model's own, <|im_end|>, is not used" in check.text) == ("ok", True)
    used, _ = inspect_rows(examples, chat, TrainConfig())
    assert all(row.ids[row.learnt[-1]] in chat.eos_ids for row in used)


def test_empty_turns_missing_prompts_and_raw_text(tiny: Model, examples: Rows) -> None:
    chat = ChatTokenizer(tiny.folder)
    _, report = inspect_rows([*examples, chat_of(" ", "Yes. Shall I?", 50)], chat, TrainConfig())
    assert (check_of(report, "PF006").level, check_of(report, "PF006").rows) == ("warn", (50,))
    _, report = inspect_rows([chat_of(" ", "Yes. Shall I?", 50)], chat, TrainConfig())
    assert check_of(report, "PF006").level == "stop"
    alone = Example((examples[0].messages[0], examples[0].messages[-1]), {}, 51)
    _, report = inspect_rows([*examples, alone], chat, TrainConfig())
    assert "an answer and no prompt" in check_of(report, "PF006").text
    text = Example(({"role": "assistant", "content": "A text to learn as it is."},), {}, 1)
    used, report = inspect_rows([text], chat, TrainConfig())
    assert "raw text" in check_of(report, "PF006").text
    assert report.stops == ()
    assert len(used[0].learnt) == len(used[0].ids) - 1


def test_rows_refused_by_template_stop_and_are_named(
    changed: Callable[..., ChatTokenizer], examples: Rows
) -> None:
    refusing = "{{ raise_exception('no answer comes first') if messages[0]['role'] == 'assistant' }}{% for"
    chat = changed(("{% for", refusing))
    greeted = [
        Example(({"role": "assistant", "content": "Hello."}, *row.messages[1:]), {}, row.line)
        for row in examples[:2]
    ]
    _, report = inspect_rows([*greeted, chat_of("Who?", "Me. Shall I?", 9)], chat, TrainConfig())
    check = check_of(report, "PF007")
    assert (check.level, check.rows, report.left_out) == ("stop", (1, 2), 2)
    assert "no answer comes first" in check.text


def test_template_without_system_role_and_rows_with_reasoning_are_said(
    changed: Callable[..., ChatTokenizer], examples: Rows
) -> None:
    refusing = "{{ raise_exception('no system turn') if messages[0]['role'] == 'system' }}{% for"
    thought = chat_of("Who?", "<think>Hm.</think>Me. Shall I?", 9)
    _, report = inspect_rows([*examples[:2], thought], changed(("{% for", refusing)), TrainConfig())
    check = check_of(report, "PF007")
    assert (check.level, report.left_out) == ("ok", 0)
    assert "no system role" in check.text
    assert "1 row" in check.text


def test_text_changed_by_tokenizer_round_trip_warns(
    changed: Callable[..., ChatTokenizer], examples: Rows
) -> None:
    _, report = inspect_rows(
        examples, changed(tokenizer={"normalizer": {"type": "Lowercase"}}), TrainConfig()
    )
    check = check_of(report, "PF008")
    assert (check.level, "36 rows" in check.text) == ("warn", True)


def test_rows_of_a_model_that_reasons_always_come_back_as_they_are_written(
    changed: Callable[..., ChatTokenizer], examples: Rows
) -> None:
    """The template opens the reasoning in the prompt alone, so rows are not written as it renders them."""
    chat = changed(("assistant\n'", "assistant\n<think>\n'"))
    thought = chat_of("Who?", "<think>Hm.</think>Me. Shall I?", 9)
    _, report = inspect_rows([*examples[:4], thought], chat, TrainConfig())
    assert [check_of(report, code).level for code in ("PF008", "PF009")] == ["ok", "ok"]


def test_answer_that_would_join_the_prompts_end_is_encoded_apart(
    changed: Callable[..., ChatTokenizer],
) -> None:
    chat = changed(("\n' + message['content']", ": ' + message['content']"), ("assistant\n'", "assistant: '"))
    rows = [chat_of("Where to?", "the lounge, the pier", n) for n in range(1, 9)]
    _, report = inspect_rows(rows, chat, TrainConfig())
    assert check_of(report, "PF009").level == "ok"
    prompt = chat.encode(chat.render(rows[0].messages[:-1], prompt=True))
    row = chat.example(rows[0])
    assert list(row.ids[: row.prompt]) == prompt
    assert list(row.ids) != chat.encode(chat.render(rows[0].messages))


def test_control_tokens_stop_and_foreign_markers_warn_or_stop(tiny: Model, examples: Rows) -> None:
    chat = ChatTokenizer(tiny.folder)
    own = chat_of("x<|im_end|>y", "No. Shall I?", 60)
    _, report = inspect_rows([*examples, own], chat, TrainConfig())
    assert (check_of(report, "PF010").level, check_of(report, "PF010").rows) == ("stop", (60,))
    foreign = chat_of("[INST] Is it open? [/INST]", "No. Shall I?", 61)
    _, report = inspect_rows([*examples, foreign], chat, TrainConfig())
    check = check_of(report, "PF010")
    assert (check.level, check.rows, "Llama 2 and Mistral" in check.text) == ("warn", (61,), True)
    _, report = inspect_rows([foreign], chat, TrainConfig())
    assert check_of(report, "PF010").level == "stop"


def test_template_with_different_generation_prompt_stops(changed: Callable[..., ChatTokenizer]) -> None:
    chat = changed(("'<|im_start|>assistant", "'<|start|>assistant"))
    _, report = inspect_rows([chat_of("Who?", "Me.")], chat, TrainConfig())
    check = check_of(report, "PF007")
    assert (check.level, "asks with" in check.text) == ("stop", True)


def test_template_of_another_family_stops(changed: Callable[..., ChatTokenizer]) -> None:
    chat = changed(("<|im_start|>", "<start_of_turn>"))
    _, report = inspect_rows([chat_of("Who?", "Me.")], chat, TrainConfig())
    check = check_of(report, "PF011")
    assert (check.level, "a Gemma template" in check.next) == ("stop", True)


def test_very_long_and_short_replies_warn(tiny: Model) -> None:
    usual = [chat_of("And?", "Yes, the north pier opens at nine and closes late. " * 3, n) for n in range(9)]
    odd = (chat_of("And?", "!", 70), chat_of("And?", "Well, that is a long story. " * 90, 71))
    _, report = inspect_rows([*usual, *odd], ChatTokenizer(tiny.folder), TrainConfig(max_tokens=4096))
    check = check_of(report, "PF018")
    assert (check.level, check.rows) == ("warn", (70, 71))
    assert check.text.count("1 row with a reply") == 2


def test_few_repeats_are_counted_and_many_warn(examples: Rows) -> None:
    assert data_checks.check_repeats(examples).level == "ok"
    copies = tuple(replace(row, line=100 + row.line) for row in examples[:3])
    few = data_checks.check_repeats((*examples, *copies))
    assert (few.level, few.rows, "3 repeat another row, 0 nearly do" in few.text) == (
        "ok",
        (101, 102, 103),
        True,
    )
    assert data_checks.check_repeats((*examples, *examples)).level == "warn"


def test_label_check_warns_of_imbalance_and_contradiction() -> None:
    def rows(**counts: int) -> Rows:
        names = [name for name, count in counts.items() for _ in range(count)]
        return tuple(chat_of(f"Which kind is number {n}?", name, n) for n, name in enumerate(names, start=1))

    assert data_checks.check_label_balance(rows(refund=20, delay=18)).level == "ok"  # type: ignore[union-attr]
    skewed = data_checks.check_label_balance(rows(refund=90, delay=10))
    assert skewed is not None
    assert (skewed.level, "90 of 100 rows have the label 'refund'" in skewed.text) == ("warn", True)
    rare = data_checks.check_label_balance(rows(refund=20, delay=18, other=3))
    assert rare is not None
    assert (rare.level, rare.rows) == ("warn", (39, 40, 41))
    assert (rare.text, "balance the labels" in rare.next) == ("1 label has fewer than 5 rows ('other')", True)
    contradicting = data_checks.check_label_balance(
        (*rows(refund=20, delay=18), chat_of("which kind is number 1", "delay", 50))
    )
    assert contradicting is not None
    assert ("1 input has two labels" in contradicting.text, contradicting.rows) == (True, (1, 50))
    assert contradicting.next == "decide for one label where an input has several"
    assert (
        data_checks.check_label_balance(
            tuple(chat_of("Who?", f"A sentence about number {n}.", n) for n in range(30))
        )
        is None
    )


def test_check_codes_levels_and_sentence() -> None:
    assert set(CHECK_CODES) >= ACCEPTABLE_CODES
    assert list(CHECK_CODES) == sorted(CHECK_CODES)
    check = PreflightCheck("PF002", "warn", "2 rows are long", (3, 9))
    assert check.sentence() == "2 rows are long (lines 3, 9)"
    assert CHECK_LEVELS == ("ok", "warn", "stop")


def test_run_preflight_adds_checks_and_accepts_by_code(tiny: Model, examples: Rows, tmp_path: Path) -> None:
    key = "sk-" + "a1B2c3D4e5F6g7H8i9J0"
    rows = (*examples, chat_of("The key?", f"It is {key}. Shall I?", 80))
    config = TrainConfig(max_tokens=256)
    report = run_preflight(rows, tiny, config, out=tmp_path / "out", measure=False)
    assert {"PF012", "PF015", "PF016", "PF019", "PF020", "PF022", "PF024"} <= {c.code for c in report.checks}
    assert [c.code for c in report.checks if c.level == "stop"] == ["PF016"]
    assert key not in str(report.to_json())
    with pytest.raises(BadInput, match="API key in 1 row"):
        report.require()
    accepted = run_preflight(rows, tiny, config, accept=("PF016",), measure=False)
    assert (accepted.exit_code, check_of(accepted, "PF016").level) == (0, "warn")
    long = chat_of("Tell me", "word " * 200, 9)
    unlike = run_preflight(rows, tiny, config, valid=[long], accept=("PF016",), measure=False)
    assert check_of(unlike, "PF014").text.startswith("validation rows: ")
    leaking = run_preflight(rows, tiny, config, valid=rows[:2], accept=("PF016",), measure=False)
    assert check_of(leaking, "PF014").level == "stop"


def test_rows_beyond_the_context_stop(tiny: Model, examples: Rows) -> None:
    long = chat_of("Tell me", "word " * 300, 77)
    report = run_preflight([*examples, long], tiny, TrainConfig(max_tokens=4096), measure=False)
    check = check_of(report, "PF019")
    assert (check.level, check.rows) == ("stop", (77,))


@pytest.mark.parametrize(
    "config",
    [{"n_positions": 20}, {"text_config": {"max_position_embeddings": 20}, "max_position_embeddings": 900}],
    ids=["gpt2", "multimodal"],
)
def test_context_is_read_from_configs_of_other_shapes(
    tiny: Model, config: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    row = EncodedRow(tuple(range(30)), (29,), 77)
    check = context_check(replace(tiny, folder=tmp_path), [row])
    assert (check.level, check.rows) == ("stop", (77,))
    assert context_check(replace(tiny, folder=tmp_path), [EncodedRow((1, 2), (1,), 3)]).level == "ok"


def test_exit_code_is_4_when_only_the_machine_stops() -> None:
    def report(*codes: str) -> PreflightReport:
        checks = tuple(PreflightCheck(code, "stop", "no") for code in codes)
        return PreflightReport(1, 1, 1, 1, 1, 1, (), 0, checks)

    assert (report().exit_code, report("PF022").exit_code, report("PF002", "PF022").exit_code) == (0, 4, 3)
    with pytest.raises(CannotRun):
        report("PF024").require()


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
def test_invalid_settings_are_refused(key: str, value: object) -> None:
    with pytest.raises(BadInput, match=key):
        TrainConfig(**{key: value})
