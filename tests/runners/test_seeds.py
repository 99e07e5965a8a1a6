"""--seeds: every tuned arm is trained as often, and nothing else of the plan changes."""

from __future__ import annotations

import pytest

from rag.errors import UsageProblem
from runners.plan import TrainStep, parse_plan
from runners.run import quick
from runners.seeds import with_seeds

BODY = {
    "name": "p", "choice": "hybrid", "model": {"name": "m"}, "data": {"documents": "d", "examples": "e", "questions": "q"},
    "steps": [
        {"kind": "index"}, {"kind": "train", "arm": "lora", "seeds": [3]},
        {"kind": "train", "arm": "hybrid", "rows": "retrieval"},
        {"kind": "evaluate", "arm": "hybrid", "weights": "hybrid", "retrieval": True},
    ],
    "weights": {"style": 1},
}  # fmt: skip


def test_seeds_count_on_from_the_plans_own() -> None:
    plan = parse_plan(BODY)
    more = with_seeds(plan, 2)
    assert [step.seeds for step in more.steps if isinstance(step, TrainStep)] == [(3, 4), (0, 1)]
    assert with_seeds(more, 1) == plan
    assert [step.seeds for step in quick(more).steps if isinstance(step, TrainStep)] == [(3,), (0,)]


def test_a_plan_that_trains_nothing_has_no_seeds() -> None:
    plan = parse_plan({**BODY, "choice": "prompting", "steps": [{"kind": "evaluate", "arm": "prompting"}]})
    with pytest.raises(UsageProblem, match="trains no arm"):
        with_seeds(plan, 2)
