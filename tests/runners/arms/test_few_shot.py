"""The few-shot prompt: selected on dev questions, unchanged unless another one leads, never asked twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import Any

import pytest

from runners.arms.few_shot import (
    MIN_SHARED_QUESTIONS,
    TRIED,
    NearestExamples,
    PromptCandidate,
    SelectionContext,
    candidate_instructions,
    halving_rounds,
    prompt_candidates,
    read_choice,
    score_lead,
    select_prompt,
)
from runners.data.examples import Example
from runners.data.formats import Message
from runners.data.questions import Question
from runners.inference.constraint import OutputConstraint
from runners.inference.types import Completion
from runners.plan.schema import parse_plan
from runners.plan.steps import EvaluateStep
from runners.run_folder import read_journal

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


class ScriptedModel:
    """A model that answers correctly when `knows` says so for the prompt; counts what it is asked."""

    def __init__(self, knows: Callable[[str, str], bool], stop_after: int | None = None) -> None:
        self.knows, self.asked, self.stop_after = knows, 0, stop_after

    def count_tokens(self, text: str) -> int:
        """Return the number of words."""
        return len(text.split())

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
            completions.append(Completion(f"It has {number}." if right else "Perhaps.", 9, 4, 0.25, "stop"))
            if on_batch:
                on_batch([position], completions[-1:])
        return completions


def stage(
    model: ScriptedModel, folder: Path, events: list[dict[str, Any]], dev: Sequence[Question] = DEV
) -> SelectionContext:
    """Return what the selection of a prompt needs, with a scripted model."""
    return SelectionContext(
        PLAN, ARM, tuple(dev), lambda: model, None, lambda q: "", "base", folder, events.append
    )  # type: ignore[arg-type, return-value]


@pytest.fixture
def banks(pier_examples: tuple[Example, ...]) -> tuple[PromptCandidate, ...]:
    """The candidate prompts from the piers' examples."""
    return prompt_candidates(PLAN, pier_examples, 2)


def test_candidates_differ_and_fixed_bank_is_first(banks: tuple[PromptCandidate, ...]) -> None:
    names = [c.name for c in banks]
    assert names[:3] == ["fixed", "reversed", "others"]
    assert "fixed, rules listed" in names
    assert len(banks) == len({(c.system, tuple(s.question for s in c.shots)) for c in banks})
    assert banks[1].shots == banks[0].shots[::-1]
    assert not any(shot in banks[0].shots for shot in banks[2].shots)
    assert banks[-1].system.endswith("Rules for every reply:\n- at most 9 words")
    stored = PromptCandidate.from_json(json.loads(json.dumps(banks[0].to_json())))
    assert [(s.question, s.reply) for s in stored.shots] == [(s.question, s.reply) for s in banks[0].shots]
    assert candidate_instructions(PLAN, own=True) == (("", "Be brief."),)


@pytest.mark.parametrize(
    ("count", "dev", "budget"), [(8, 40, 60), (8, 22, 60), (4, 40, 60), (3, 30, 40), (2, 9, 99)]
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
    assert "leads the fixed bank" in events[-1]["reason"]
    assert {event["prompt"] for event in events[:-1]} == {c.name for c in banks}
    stored = read_choice(tmp_path, "few-shot")
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


@pytest.mark.parametrize(
    ("other", "fixed", "enough"),
    [
        ([1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0], False),
        ([0.5, 0.6, 0.7, 0.8], [0.4, 0.5, 0.6, 0.7], True),
        ([1.0, 1.0, 1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 1.0, 1.0, 0.0], False),
        ([1.0, 1.0, 1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0, 1.0, 0.0], True),
        ([1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0], False),
        ([1.0, 1.0, 1.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0, 1.0, 0.0], True),
        ([0.0, 0.0, 0.0], [1.0, 1.0, 0.0], False),
    ],
)
def test_lead_counts_above_half_its_standard_error(
    other: list[float], fixed: list[float], enough: bool
) -> None:
    assert score_lead(other, fixed).enough is enough


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


def test_nearest_examples_are_shown_nearest_last(pier_examples: tuple[Example, ...], words: Any) -> None:
    nearest = NearestExamples(pier_examples, words, 3)
    shots = nearest(Question("q", "How many berths has the Heron Pier?"))
    assert len(shots) == 3
    assert shots[-1].question == "How many berths has the Heron Pier?"
    assert shots == NearestExamples(pier_examples[::-1], words, 3)(
        Question("q", "How many berths has the Heron Pier?")
    )
    assert NearestExamples((), words, 3)(DEV[0]) == ()
