"""What dev answers settle: the limit of tokens grows while answers are cut, and unsupported answers are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rag.refusal.relevance import UNCITED
from runners.arms.few_shot import PromptCandidate
from runners.arms.prompt_selection import SelectionContext
from runners.data.questions import Question
from runners.inference.types import Completion
from runners.plan.schema import Plan, parse_plan
from runners.plan.steps import EvaluateStep
from runners.selective.on_dev import ArmSettings, _with_check, settle_on_dev
from tests.support.scripted import WholeAnswers

DEV = tuple(
    Question(f"d{n}", f"How many berths has pier {n}?", reference=f"It has {n}.", wordings=(f"berths {n}?",))
    for n in range(40)
)


def plan_of(**more: Any) -> Plan:
    """Return a plan with one arm without weights."""
    body = {"name": "p", "choice": "prompting", "model": {"name": "m"}, "data": {"questions": "q"}}
    steps = [{"kind": "evaluate", "arm": "prompting"}]
    return parse_plan({**body, "steps": steps, "weights": {"exact_match": 1}, "max_new_tokens": 8, **more})


class Wordy(WholeAnswers):
    """A model whose answer to question n has ``needs(n)`` tokens, and is cut at the limit, or ended at ``most``."""

    def __init__(self, needs: Callable[[int], int], most: int = 1_000) -> None:
        self.needs, self.most = needs, most
        self.asked: list[tuple[int, str]] = []

    def generate(
        self,
        chats: Any,
        max_new_tokens: int,
        on_batch: Any = None,
        *,
        known: Any = (),
        constraint: Any = None,
    ) -> list[Completion]:
        """Answer all but the known chats."""
        completions = []
        for position, chat in enumerate(chats):
            if position in known:
                continue
            question = chat[-1]["content"]
            needed = self.needs(int("".join(c for c in question if c.isdigit())))
            self.asked.append((max_new_tokens, question))
            cut = needed > min(max_new_tokens, self.most)
            completions.append(
                Completion(
                    "It is.", 9, min(needed, max_new_tokens, self.most), 0.1, "length" if cut else "stop"
                )
            )
            on_batch([position], completions[-1:])
        return completions


def settled(model: Wordy, folder: Path, plan: Plan, answered: tuple[str, ...] = ()) -> ArmSettings:
    """Return what the dev answers of a scripted model settle."""
    arm = plan.arms[0]
    stage = SelectionContext(
        plan, arm, DEV, lambda: model, None, lambda q: "", "base", folder, lambda event: None
    )
    return settle_on_dev(stage, PromptCandidate("own", "", plan.prompts.context), answered)


@pytest.mark.parametrize(
    ("needs", "limit", "cut"),
    [
        (lambda n: 5, 8, 0),
        (lambda n: 30 if n % 2 else 5, 32, 0),
        (lambda n: 999 if n == 3 else 5, 256, 1),
        (lambda n: 256, 256, 0),
    ],
)
def test_limit_is_doubled_until_one_answer_in_twenty_is_cut(
    needs: Callable[[int], int], limit: int, cut: int, tmp_path: Path
) -> None:
    model = Wordy(needs)
    done = settled(model, tmp_path, plan_of())
    assert (done.max_new_tokens, done.cut, done.asked) == (limit, cut, 10)
    assert done.applied(plan_of()).max_new_tokens == limit
    before = len(model.asked)
    assert settled(model, tmp_path, plan_of()) == done
    assert len(model.asked) == before, "nothing is asked twice"
    again = [question for at, question in model.asked if at > 8]
    assert all(needs(int("".join(c for c in q if c.isdigit()))) > 8 for q in again), "only what was cut"


def test_answers_that_repeat_themselves_and_higher_limits_do_not_count_as_cut(tmp_path: Path) -> None:
    assert settled(Wordy(lambda n: 99, most=4), tmp_path / "loops", plan_of()).max_new_tokens == 8
    assert settled(Wordy(lambda n: 999), tmp_path / "own", plan_of(max_new_tokens=400)).max_new_tokens == 400


def test_what_chose_the_prompt_comes_first_in_one_wording_each(tmp_path: Path) -> None:
    model = Wordy(lambda n: 5)
    done = settled(model, tmp_path, plan_of(), tuple(f"d{n}" for n in range(20, 36)))
    assert done.asked == 10, "of the 16 that were answered every second one is asked in its other wording"
    numbers = [int("".join(c for c in question if c.isdigit())) for _, question in model.asked]
    assert set(range(20, 36, 2)) < set(numbers)
    assert sum(question.startswith("berths") for _, question in model.asked) == 1


def row(right: int, support: float | None) -> dict[str, Any]:
    """Return a dev answer; a support of None is a refusal's."""
    return {"right": right, "support": support}


@pytest.mark.parametrize(
    ("rows", "check", "least"),
    [
        # much support of all right answers: no more than the usual one is demanded
        ([row(1, 3.0 + n / 10) for n in range(30)] + [row(0, 2.0)] * 9, "refuse", 1.0),
        # few right answers: the usual one, which loses none of them
        ([row(1, 3.0)] * 5 + [row(0, 0.0)] * 9, "refuse", 1.0),
        # two of ten would be lost
        ([row(1, 3.0)] * 8 + [row(1, UNCITED)] * 2 + [row(0, 0.0)] * 9, "mark", None),
        # right refusals count among the right answers: one of 13 is lost
        ([row(1, 3.0)] * 4 + [row(1, 0.5)] + [row(1, None)] * 8 + [row(0, 0.0)] * 3, "refuse", 1.0),
        # nothing is right, nothing is shown
        ([row(0, 0.0)] * 20, "mark", None),
        # nothing to refuse on dev
        ([row(1, 3.0)] * 8, "refuse", 1.0),
    ],
)
def test_check_refuses_where_dev_loses_few_right_answers(
    rows: list[dict[str, Any]], check: str, least: float | None
) -> None:
    done = _with_check(ArmSettings(max_new_tokens=8), rows, 1.0)
    assert (done.check, done.least_support) == (check, least)
    assert done.why
    refused = [r for r in rows if r["support"] is not None and r["support"] < (least or UNCITED)]
    assert sum(r["right"] for r in refused) <= 0.08 * sum(r["right"] for r in rows)


def test_loss_is_counted_at_the_support_that_the_plan_demands() -> None:
    rows = [row(1, 3.0)] * 8 + [row(1, 1.5)] * 2
    assert _with_check(ArmSettings(max_new_tokens=8), rows, 1.0).check == "refuse"
    assert _with_check(ArmSettings(max_new_tokens=8), rows, 2.0).check == "mark"


def test_check_is_settled_for_arms_that_search_and_only_where_the_plan_wants_it() -> None:
    refuse = plan_of().refusal.model_copy(update={"check": "refuse"})
    search = EvaluateStep(arm="rag", retrieval=True)
    assert refuse.checks(search)
    assert not refuse.checks(EvaluateStep(arm="prompting"))
    assert not plan_of().refusal.checks(search)
    assert refuse.dev_answers(search) == 40
    assert plan_of().refusal.dev_answers(search) == 10
