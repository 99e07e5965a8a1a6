"""The prompt of an arm: banks and instructions to try, selected on dev questions, the default unless another leads."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runners.arms.few_shot import (
    TURN_TOKENS,
    ExamplePool,
    NearestExamples,
    NearestSetting,
    PromptCandidate,
    ShotLimits,
    candidate_layouts,
    many_shots,
    prompt_candidates,
)
from runners.arms.prompt_selection import (
    ANSWERS_PER_PROMPT,
    MIN_SHARED_QUESTIONS,
    TRIED,
    SelectionContext,
    halving_rounds,
    read_stored_prompts,
    select_prompt,
)
from runners.arms.prompts import build_messages
from runners.data.examples import Example
from runners.data.formats import Message
from runners.data.questions import Question
from runners.inference.constraints.constraint import OutputConstraint
from runners.inference.types import Completion
from runners.plan.schema import Plan, parse_plan
from runners.plan.steps import EvaluateStep
from runners.run_folder import read_journal
from tests.support.scripted import WholeAnswers

ARM = EvaluateStep(arm="few-shot", shots=2, bank="chosen")
PLAN = parse_plan(
    {
        "name": "p",
        "choice": "few-shot",
        "model": {"name": "m"},
        "data": {"examples": "e", "questions": "q"},
        "steps": [ARM.model_dump()],
        "weights": {"exact_match": 1},
        "prompts": {"system": "Be brief."},
        "checks": [{"kind": "max_words", "value": 9, "text": "at most 9 words"}],
    }
)
DEV = tuple(Question(f"d{n}", f"How many berths has pier {n}?", reference=f"It has {n}.") for n in range(40))


class ScriptedModel(WholeAnswers):
    """A model that answers correctly when `knows` says so for the prompt; counts what it is asked."""

    def __init__(self, knows: Callable[[str, str], bool], stop_after: int | None = None) -> None:
        self.knows, self.asked, self.stop_after = knows, 0, stop_after

    def generate(
        self,
        chats: Sequence[Sequence[Message]],
        max_new_tokens: int,
        on_batch: Callable[[list[int], list[Completion]], None] | None = None,
        *,
        known: Container[int] = (),
        constraint: OutputConstraint | None = None,
    ) -> list[Completion]:
        """Answer each chat by itself."""
        completions = []
        for position, chat in enumerate(chats):
            if position in known:
                continue
            if self.asked == self.stop_after:
                raise KeyboardInterrupt
            self.asked += 1
            number = chat[-1]["content"].rstrip("?").split()[-1]
            right = self.knows("\n".join(m["content"] for m in chat[:-1]), number)
            text = f"It has {number}." if right else "Perhaps."
            size = sum(len(m["content"].split()) for m in chat)
            completions.append(Completion(text, size, 4, 0.25, "stop"))
            if on_batch:
                on_batch([position], completions[-1:])
        return completions


def stage(
    model: ScriptedModel,
    folder: Path,
    events: list[dict[str, Any]],
    dev: Sequence[Question] = DEV,
    pool: ExamplePool | None = None,
) -> SelectionContext:
    """Return what the selection of a prompt needs, with a scripted model."""
    return SelectionContext(
        PLAN, ARM, tuple(dev), lambda: model, None, lambda q: "", "base", folder, events.append, pool
    )


def candidates_of(
    plan: Plan, rows: Sequence[Example], count: int, **more: Any
) -> tuple[PromptCandidate, ...]:
    """Return the prompts to try for an arm without passages."""
    return prompt_candidates(plan, rows, count, candidate_layouts(plan, False), **more)


@pytest.fixture
def banks(pier_examples: tuple[Example, ...]) -> tuple[PromptCandidate, ...]:
    """The candidate prompts from the piers' examples."""
    return candidates_of(PLAN, pier_examples, 2)


def test_candidates_differ_and_fixed_bank_is_first(banks: tuple[PromptCandidate, ...]) -> None:
    names = [c.name for c in banks]
    assert names[:4] == ["fixed", "others", "reversed", "fixed, rules listed"]
    assert len(banks) == len({(c.system, tuple(s.question for s in c.shots)) for c in banks})
    assert banks[2].shots == banks[0].shots[::-1]
    assert not any(shot in banks[0].shots for shot in banks[1].shots)
    assert banks[3].system.endswith("Rules for every reply:\n- at most 9 words")
    stored = PromptCandidate.from_json(json.loads(json.dumps(banks[0].to_json())))
    assert [(s.question, s.reply) for s in stored.shots] == [(s.question, s.reply) for s in banks[0].shots]
    assert [layout.label for layout in candidate_layouts(PLAN, False, own=True)] == [""]


@pytest.mark.parametrize(
    ("count", "dev", "budget"),
    [
        (10, 30, 60),
        (12, 30, 60),
        (8, 22, 60),
        (4, 40, 60),
        (4, 40, 24),
        (3, 30, 20),
        (2, 9, 99),
        (6, 12, 40),
        (10, 12, 60),
    ],
)
def test_halving_rounds_stay_within_budget_and_questions(count: int, dev: int, budget: int) -> None:
    planned = halving_rounds(count, dev, budget)
    assert sum(size * each for size, each in planned) <= budget
    assert sum(each for _, each in planned) <= dev
    assert planned[-1][0] == 2
    assert planned[-1][1] >= MIN_SHARED_QUESTIONS
    assert [size for size, _ in planned] == sorted((size for size, _ in planned), reverse=True)


@pytest.mark.parametrize(
    ("count", "dev", "budget"), [(8, 40, 20), (8, 9, 60), (1, 40, 60), (8, 40, 0), (8, 0, 60)]
)
def test_no_rounds_with_too_few_questions_or_answers(count: int, dev: int, budget: int) -> None:
    assert halving_rounds(count, dev, budget) == ()


def test_leading_prompt_is_selected(tmp_path: Path, banks: tuple[PromptCandidate, ...]) -> None:
    events: list[dict[str, Any]] = []
    model = ScriptedModel(lambda prompt, number: "Rules" in prompt or int(number) % 3 == 0)
    chosen = select_prompt(stage(model, tmp_path, events), banks, 60)
    assert "Rules" in chosen.system
    assert model.asked <= 60
    assert events[-1]["event"] == "prompt.chosen"
    assert f"{chosen.name} chosen: +" in events[-1]["reason"]
    assert {event["prompt"] for event in events[:-1]} == {c.name for c in banks}
    stored = read_stored_prompts(tmp_path).choices.get("few-shot")
    assert stored is not None
    assert stored["chosen"]["name"] == chosen.name
    assert [row["name"] for row in stored["tried"]] == [c.name for c in banks]
    assert all(0 <= row["score"] <= 1 and row["questions"] for row in stored["tried"])
    again = ScriptedModel(lambda prompt, number: False)
    assert select_prompt(stage(again, tmp_path, []), banks, 60) == PromptCandidate.from_json(stored["chosen"])
    assert again.asked == 0


def test_fixed_bank_stays_without_better_prompt(tmp_path: Path, banks: tuple[PromptCandidate, ...]) -> None:
    fixed = "\n".join(f"{shot.question}\n{shot.reply}" for shot in banks[0].shots)
    for knows in (
        lambda prompt, number: int(number) % 2 == 0,
        lambda prompt, number: fixed in prompt or int(number) % 2 == 0,
    ):
        chosen = select_prompt(stage(ScriptedModel(knows), tmp_path / str(id(knows)), []), banks, 60)
        assert chosen.name == "fixed"


def test_no_further_question_is_asked_where_no_prompt_scores_anything(
    tmp_path: Path, banks: tuple[PromptCandidate, ...]
) -> None:
    events: list[dict[str, Any]] = []
    model = ScriptedModel(lambda prompt, number: False)
    assert select_prompt(stage(model, tmp_path, events), banks, 60) is banks[0]
    *screening, (_, fresh) = halving_rounds(len(banks), len(DEV), 60)
    assert model.asked == sum(size * each for size, each in screening) < 60 - 2 * fresh + 1
    each = sum(each for _, each in screening)
    assert (
        events[-1]["reason"]
        == f"the examples drawn by the seed kept: no prompt scored anything on {each} questions"
    )


def test_longer_prompt_with_one_lucky_answer_is_not_taken(
    tmp_path: Path, banks: tuple[PromptCandidate, ...]
) -> None:
    """As in the demo: of the fresh questions one differs, and the other prompt is many times as long."""
    default, long = banks[0], replace(banks[0], name="many (78)", shots=banks[0].shots * 39)
    lucky = DEV[20].question.rstrip("?").split()[-1]
    events: list[dict[str, Any]] = []

    def knows(prompt: str, number: str) -> bool:
        return int(number) % 2 == 0 if number != lucky else len(prompt) > 3_000

    assert select_prompt(stage(ScriptedModel(knows), tmp_path, events), (default, long), 60) == default
    assert events[-1]["reason"] == (
        "the examples drawn by the seed kept: many (78) +0.03 on 30 fresh questions, 1 of them differs (at least 3 must)"
    )
    stored = read_stored_prompts(tmp_path).choices.get("few-shot")
    assert stored is not None
    assert (stored["lead"]["questions"], stored["lead"]["differing"]) == (30, 1)
    assert stored["lead"]["tokens"] > 10 * stored["lead"]["default_tokens"]


def test_cheaper_prompt_with_the_same_answers_is_taken(
    tmp_path: Path, banks: tuple[PromptCandidate, ...]
) -> None:
    long, short = replace(banks[0], name="long", shots=banks[0].shots * 10), replace(banks[0], name="short")
    events: list[dict[str, Any]] = []
    model = ScriptedModel(lambda prompt, number: int(number) % 2 == 0)
    assert select_prompt(stage(model, tmp_path, events), (long, short), 60) == short
    assert "short chosen: +0.00 on 30 fresh questions, none of them differs; " in events[-1]["reason"]


def test_cheaper_of_two_others_is_compared_with_the_default(
    tmp_path: Path, banks: tuple[PromptCandidate, ...]
) -> None:
    long, short = replace(banks[0], name="long", shots=banks[0].shots * 10), replace(banks[0], name="short")
    model = ScriptedModel(lambda prompt, number: "How many" in prompt)
    without = replace(banks[0], name="none", shots=())
    assert select_prompt(stage(model, tmp_path, []), (without, long, short), 60) == short
    better = ScriptedModel(lambda prompt, number: len(prompt) > 1_000 or int(number) % 2 == 0)
    assert select_prompt(stage(better, tmp_path / "better", []), (without, long, short), 60) == long


def test_interrupted_selection_asks_nothing_twice(tmp_path: Path, banks: tuple[PromptCandidate, ...]) -> None:
    def knows(prompt: str, number: str) -> bool:
        return "Rules" in prompt

    whole = ScriptedModel(knows)
    expected = select_prompt(stage(whole, tmp_path / "whole", []), banks, 60)
    with pytest.raises(KeyboardInterrupt):
        select_prompt(stage(ScriptedModel(knows, stop_after=25), tmp_path / "cut", []), banks, 60)
    rest = ScriptedModel(knows)
    assert select_prompt(stage(rest, tmp_path / "cut", []), banks, 60).name == expected.name
    assert rest.asked == whole.asked - 25
    rows = read_journal(tmp_path / "cut" / TRIED)
    assert len({(row["prompt"], row["id"]) for row in rows}) == len(rows) == whole.asked
    assert {"answer", "score", "prompt_tokens", "completion_tokens", "seconds"} <= set(rows[0])


@pytest.mark.parametrize(
    ("dev", "budget", "reason"),
    [(DEV[:5], 60, "5 dev questions"), (DEV, 0, "budget of 0"), ((), 60, "0 dev")],
)
def test_fixed_bank_stays_with_reason_when_data_is_too_small(
    tmp_path: Path, banks: tuple[PromptCandidate, ...], dev: tuple[Question, ...], budget: int, reason: str
) -> None:
    events: list[dict[str, Any]] = []
    model = ScriptedModel(lambda prompt, number: True)
    assert select_prompt(stage(model, tmp_path, events, dev), banks, budget) is banks[0]
    assert model.asked == 0
    assert reason in events[-1]["reason"]


def word_count(text: str) -> int:
    return len(text.split())


def test_nearest_examples_are_ordered_and_fit(pier_examples: tuple[Example, ...], words: Any) -> None:
    heron = Question("q", "How many berths has the Heron Pier?")
    pool = ExamplePool(pier_examples, word_count, words)
    shots = NearestExamples(pool, NearestSetting(3))(heron)
    assert len(shots) == 3
    assert shots[-1].question == heron.question
    again = ExamplePool(pier_examples[::-1], word_count, words)
    assert shots == NearestExamples(again, NearestSetting(3))(heron)
    assert NearestExamples(again, NearestSetting(3, nearest_last=False))(heron) == shots[::-1]
    size = word_count(heron.question) + word_count(shots[-1].reply) + 2 * TURN_TOKENS
    assert NearestExamples(pool, NearestSetting(3, max_tokens=size))(heron) == shots[-1:]
    assert NearestExamples(ExamplePool((), word_count, words), NearestSetting(3))(DEV[0]) == ()


def labelled(count: int, labels: int) -> tuple[Example, ...]:
    """Examples with labels in turn, those of later labels longer."""
    return tuple(
        Example(
            (
                {"role": "user", "content": f"Request {n} about" + " berths" * (n % labels)},
                {"role": "assistant", "content": f"label {n % labels}"},
            ),
            {},
            n + 1,
        )
        for n in range(count)
    )


def test_many_examples_fill_the_limit_with_every_label(words: Any) -> None:
    rows = labelled(60, 6)
    pool = ExamplePool(rows, word_count, words)
    sizes = {row.line: pool.tokens(position) for position, row in enumerate(pool.rows)}
    for limit in (0, 141, 400, 10_000):
        shots = many_shots(pool, limit, 0)
        assert sum(sizes[shot.line] for shot in shots) <= limit
        assert len({shot.line for shot in shots}) == len(shots)
        if limit:
            assert {shot.reply for shot in shots} == {f"label {n}" for n in range(6)}
    assert len(many_shots(pool, 10_000, 0)) == 60
    assert many_shots(pool, 400, 0) == many_shots(ExamplePool(rows[::-1], word_count), 400, 0)


def test_nearest_and_many_come_first_for_labels(words: Any) -> None:
    rows = labelled(60, 6)
    pool = ExamplePool(rows, word_count, words)
    names = [c.name for c in candidates_of(PLAN, rows, 2, pool=pool, limits=ShotLimits(900, 500))]
    assert names[:4] == ["fixed", "nearest 8", "many (38)", "fixed, rules listed"]
    assert {"nearest 16", "nearest 4", "nearest 8, nearest first"} < set(names)
    assert len(names) == len(set(names))
    assert all(
        "nearest" not in c.name for c in candidates_of(PLAN, rows, 2, pool=ExamplePool(rows, word_count))
    )
    small = [c.name for c in candidates_of(PLAN, rows, 2, pool=pool, limits=ShotLimits(60, 60))]
    assert not any(name.startswith(("nearest 8", "many")) for name in small)


@pytest.mark.parametrize(
    ("check", "system", "label", "line"),
    [
        ({"kind": "labels", "value": ["pay", "refund"]}, "Sort it.", "labels listed", "\npay\nrefund"),
        ({"kind": "labels", "value": ["pay", "refund"]}, "Say pay or Refund.", None, ""),
        (
            {"kind": "json_schema", "value": {"properties": {"place": {}, "day": {}}, "required": ["place"]}},
            "Fill it in.",
            "keys named",
            "Its keys: place; where they apply also: day.",
        ),
        (
            {"kind": "json_schema", "value": {"properties": {"place": {}}}},
            "",
            "keys named",
            "Its keys: place.",
        ),
    ],
)
def test_instructions_name_labels_and_keys(
    check: dict[str, Any], system: str, label: str | None, line: str
) -> None:
    body = PLAN.model_dump(mode="json", by_alias=True)
    plan = parse_plan({**body, "checks": [check], "prompts": {"system": system}})
    variants = {layout.label: layout.system for layout in candidate_layouts(plan, False)}
    assert list(variants) == ["", *filter(None, [label])]
    if label:
        assert variants[label].startswith(system)
        assert variants[label].endswith(line)
    prompts = candidates_of(plan, (), 0)
    assert [c.name for c in prompts] == ["the plan's instructions", *filter(None, [label])]
    assert all(c.shots == () for c in prompts)


def test_layouts_move_instructions_and_question_of_an_arm_that_retrieves() -> None:
    body = PLAN.model_dump(mode="json", by_alias=True)
    prompts = {
        "system": "Answer for the ferry. Be brief.",
        "context": "Texte:\n{passages}\n\nFrage: {question}",
    }
    plan = parse_plan({**body, "prompts": prompts})
    chats = {
        c.name: build_messages(c.applied(plan).prompts, "Wann?", "[1] A")
        for c in candidates_of_retrieval(plan)
    }
    system = {"role": "system", "content": prompts["system"]}
    usual = "Texte:\n[1] A\n\nFrage: Wann?"
    assert chats["the plan's instructions"] == [system, {"role": "user", "content": usual}]
    assert chats["short instructions"][0]["content"] == "Answer for the ferry."
    assert chats["instructions last"] == [{"role": "user", "content": f"{usual}\n\n{prompts['system']}"}]
    before = f"Texte:\n[1] A\n\n{prompts['system']}\n\nFrage: Wann?"
    assert chats["instructions before the question"] == [{"role": "user", "content": before}]
    assert chats["question first and last"][1]["content"] == f"Frage: Wann?\n\n{usual}"
    assert [c.name for c in candidates_of_retrieval(plan, own=True)] == [
        "the plan's instructions",
        "question first and last",
    ]
    brace = parse_plan({**body, "prompts": {**prompts, "system": "Answer {question} well. Be brief."}})
    assert "instructions last" not in [c.name for c in candidates_of_retrieval(brace)]


def candidates_of_retrieval(plan: Plan, own: bool = False) -> tuple[PromptCandidate, ...]:
    """Return the prompts to try for an arm that retrieves and shows no examples."""
    return prompt_candidates(plan, (), 0, candidate_layouts(plan, True, own))


def test_nearest_bank_is_chosen_stored_once_and_never_shows_the_question_itself(
    tmp_path: Path, words: Any
) -> None:
    rows = tuple(
        Example(
            ({"role": "user", "content": q.question}, {"role": "assistant", "content": str(q.reference)}),
            {},
            n,
        )
        for n, q in enumerate(DEV, 1)
    )
    pool = ExamplePool(rows, word_count, words)
    candidates = candidates_of(PLAN, rows, 2, pool=pool, limits=ShotLimits(0, 400))
    seen: list[tuple[str, str]] = []

    def knows(prompt: str, number: str) -> bool:
        seen.append((prompt, number))
        return prompt.count("How many") >= 7 and "rules" not in prompt

    events: list[dict[str, Any]] = []
    chosen = select_prompt(stage(ScriptedModel(knows), tmp_path, events, pool=pool), candidates, 60)
    assert chosen.nearest is not None
    assert not any(f"pier {number}?" in prompt for prompt, number in seen)
    stored = read_stored_prompts(tmp_path).choices.get("few-shot")
    assert stored is not None
    assert (stored["chosen"]["shots"], stored["chosen"]["nearest"]) == ([], chosen.nearest.count)
    assert (stored["allowed"], stored["budget"]) == (60, 60)
    assert stored["used"] == len(seen) <= 60
    assert stored["lead"]["difference"] > 0
    assert len(stored["tried"]) == 60 // ANSWERS_PER_PROMPT
    assert stored["untried"] == [c.name for c in candidates[10:]]
    assert f"; {len(candidates) - 10} prompts not tried, beyond 60 answers" in events[-1]["reason"]
    assert not any(name in events[-1]["reason"] for name in stored["untried"])
    recalled = PromptCandidate.from_json(stored["chosen"])
    assert recalled == chosen
    examples, vectors = read_stored_prompts(tmp_path).examples()
    assert [e.reply for e in examples] == [e.reply for e in pool.rows]
    assert vectors is not None
    shown = recalled.shown(ExamplePool(examples, word_count, words, vectors))
    assert callable(shown)
    asked = Question("q", "How many berths has pier 3 now?")
    assert [e.reply for e in shown(asked)] == [e.reply for e in NearestExamples(pool, chosen.nearest)(asked)]
