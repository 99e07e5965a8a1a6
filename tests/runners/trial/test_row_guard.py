"""Rows are counted before an arm is trained, and a run stops where too few are left or have their passage."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runners.arms.row_account import RowAccount, recorded_accounts
from runners.data.examples import Example
from runners.models.resolve import Model
from runners.plan.schema import Plan, parse_plan
from runners.run_folder import INDEX, RunFolder
from runners.runs.opened import OpenRun
from runners.runs.retrieval import REFUSAL_FILE, RunRetrieval
from runners.trial import row_guard
from runners.trial.row_guard import RowsLost, require_rows, training_accounts
from tests.support.opened import data_of, opened_run


def plan(*steps: dict[str, Any], **changes: Any) -> Plan:
    body = {
        "schema": 1,
        "name": "guard",
        "choice": "hybrid",
        "model": {"name": "m"},
        "data": {"documents": "d", "examples": "e", "questions": "q", **changes},
        "steps": [{"kind": "index", "k": 3}, *steps],
        "weights": {"style": 1},
    }
    return parse_plan(body)


HYBRID = (
    {"kind": "train", "arm": "hybrid", "rows": "retrieval", "max_tokens": 4096},
    {"kind": "evaluate", "arm": "hybrid", "weights": "hybrid", "retrieval": True},
)
LORA = ({"kind": "train", "arm": "lora"}, {"kind": "evaluate", "arm": "lora", "weights": "lora"})


@pytest.fixture
def context(tmp_path: Path, tiny: Model, make_retriever: Callable[..., Any]) -> Callable[..., OpenRun]:
    """Return a function that makes the context of a run whose index is built."""

    def make(made: Plan, examples: Sequence[Example], indexed: bool = True) -> OpenRun:
        run = RunFolder.create(tmp_path / "run", made, resume=True)
        opened = opened_run(made, run, tiny, data_of(examples))
        if not indexed:
            return opened
        retriever = make_retriever()
        (run.path / INDEX).mkdir(exist_ok=True)
        (run.path / REFUSAL_FILE).write_text(json.dumps(retriever.threshold.to_json()), "utf-8")
        searched = RunRetrieval(opened.models, index=retriever.index)
        return opened.replace(retrieval=searched)

    return make


def unsupported(examples: Sequence[Example]) -> tuple[Example, ...]:
    """Return the examples with replies that no document supports, and with their own lines."""
    last = examples[-1]
    return tuple(replace(last, line=n + 1) for n in range(len(examples)))


def test_hybrid_with_passages_goes_on_and_says_how_many(
    context: Callable[..., OpenRun], pier_examples: Sequence[Example]
) -> None:
    opened = context(plan(*HYBRID), pier_examples)
    assert require_rows(opened, opened.plan.steps, False) == ("hybrid",)
    (event,) = [e for e in opened.folder.events() if e["event"] == "rows.counted"]
    assert event["reason"] == (
        "hybrid trains on 14 of 14 examples; 13 have their passage or are refusals; for 1 no passage supports the reply, "
        "they keep those that the search returns (rows: line 14)"
    )


def test_hybrid_without_passages_stops_and_names_rows(
    context: Callable[..., OpenRun], pier_examples: Sequence[Example]
) -> None:
    rows = tuple(replace(row, meta={"doc_id": f"gone-{row.line}"}) for row in unsupported(pier_examples))
    opened = context(plan(*HYBRID), rows)
    with pytest.raises(RowsLost) as problem:
        require_rows(opened, opened.plan.steps, False)
    assert problem.value.exit_code == 3
    assert "hybrid trains on 14 of 14 examples; 0 have their passage" in problem.value.message
    assert (
        "14 document ids of rows are not in the documents (gone-1, gone-2, gone-3, ...)"
        in problem.value.message
    )
    assert "(rows: line 1, line 2, line 3, ...)" in problem.value.message
    assert "meta.doc_id" in problem.value.hint
    assert "--accept-lost-rows" in problem.value.hint


def test_accepted_loss_is_remembered_by_the_run(
    context: Callable[..., OpenRun], pier_examples: Sequence[Example]
) -> None:
    opened = context(plan(*HYBRID), unsupported(pier_examples))
    assert require_rows(opened, opened.plan.steps, True) == ("hybrid",)
    assert require_rows(opened, opened.plan.steps, False) == ("hybrid",), "a resumed run does not ask again"
    assert [e["arm"] for e in opened.folder.events() if e["event"] == row_guard.ACCEPTED] == ["hybrid"]


def test_plan_accepts_a_loss(context: Callable[..., OpenRun], pier_examples: Sequence[Example]) -> None:
    opened = context(plan(*HYBRID, lost_rows="accept"), unsupported(pier_examples))
    assert require_rows(opened, opened.plan.steps, False) == ("hybrid",)
    assert "lost_rows" not in plan(*HYBRID).model_dump(mode="json")["data"], "digests of older plans stay"


@pytest.mark.parametrize(("long", "stops"), [(4, False), (5, True)])
def test_plain_arm_that_loses_long_rows_stops(
    context: Callable[..., OpenRun], examples: Sequence[Example], long: int, stops: bool
) -> None:
    """Below two thirds of 12 rows are left when 5 are longer than max_tokens."""
    reply = {"role": "assistant", "content": "the pier is open " * 400}
    rows = [
        replace(row, messages=(*row.messages[:-1], reply), line=n) if n <= long else replace(row, line=n)
        for n, row in enumerate(examples[:12], 1)
    ]
    opened = context(plan(*LORA), rows, indexed=False)
    (account,) = training_accounts(opened, opened.plan.steps)
    assert (account.rows, account.of, account.short, account.lost) == (12 - long, 12, stops, stops)
    assert "longer than max_tokens" in account.text
    if stops:
        for accepted in (False, True):
            with pytest.raises(
                RowsLost, match=r"lora trains on 7 of 12 examples.*rows: line 1, line 2, line 3"
            ) as problem:
                require_rows(opened, opened.plan.steps, accepted)
            assert "--accept-lost-rows" not in problem.value.hint, "training refuses so many long rows anyway"


def test_classifier_whose_replies_are_no_labels_stops(
    context: Callable[..., OpenRun], pier_examples: Sequence[Example]
) -> None:
    body = plan({"kind": "evaluate", "arm": "classifier", "classifier": True}).model_dump(by_alias=True)
    made = parse_plan({**body, "checks": [{"kind": "labels", "value": ["yes"]}]})
    opened = context(made, pier_examples, indexed=False)
    with pytest.raises(RowsLost, match="classifier trains on 0 of 14 examples; 14 have a reply that is none"):
        require_rows(opened, made.steps, False)


def test_nearest_replies_without_replies_stop(
    context: Callable[..., OpenRun], pier_examples: Sequence[Example]
) -> None:
    """Under two thirds of the rows have a question and a reply; the run's log tells the same later."""
    made = plan({"kind": "evaluate", "arm": "nearest-reply", "nearest_reply": True})
    turns = [(example.messages[-2], {"role": "assistant", "content": " "}) for example in pier_examples]
    rows = [replace(example, messages=own) for example, own in zip(pier_examples, turns, strict=True)]
    opened = context(made, (*rows[:10], *pier_examples[10:]), indexed=False)
    reason = "nearest-reply trains on 4 of 14 examples; 10 have no question or no reply"
    with pytest.raises(RowsLost, match=reason):
        require_rows(opened, made.steps, False)
    events = [{"event": "replies.fitted", "arm": "nearest-reply", "of": 14, "left_out": 10}]
    assert recorded_accounts(made, events)["nearest-reply"].text == reason


def test_hybrid_is_counted_once_the_index_is_there(
    context: Callable[..., OpenRun], pier_examples: Sequence[Example]
) -> None:
    opened = context(plan(*HYBRID), pier_examples, indexed=False)
    assert list(training_accounts(opened, opened.plan.steps)) == []


def done(arm: str, **result: Any) -> dict[str, Any]:
    return {"event": "step.done", "step": f"train:{arm}", "result": result}


def test_account_of_rows_that_were_too_long() -> None:
    counts = {"examples": 150, "rows": 150, "unsupported": 0, "by_document": 0}
    events = [done("hybrid", account=counts, trained=[{"rows": 1, "left_out": 149}])]
    account = recorded_accounts(plan(*HYBRID), events)["hybrid"]
    assert (account.rows, account.of, account.lost) == (1, 150, True)
    assert account.text.startswith(
        "hybrid trains on 1 of 150 examples; 149 are longer than max_tokens; 150 have"
    )


def test_account_of_kept_rows_is_not_lost_but_short() -> None:
    kept = {"examples": 150, "rows": 150, "unsupported": 120, "by_document": 0}
    account = recorded_accounts(plan(*HYBRID), [done("hybrid", account=kept, trained=[{"rows": 150}])])[
        "hybrid"
    ]
    assert (account.rows, account.with_passage, account.lost, account.short) == (150, 30, False, True)


def test_arm_with_weights_of_another_shares_its_account() -> None:
    steps: list[dict[str, Any]] = [
        *LORA,
        {"kind": "evaluate", "arm": "naive-stack", "weights": "lora", "retrieval": True},
        {**HYBRID[0], "start_from": "lora"},
        HYBRID[1],
    ]
    full = {"examples": 60, "rows": 60, "unsupported": 0, "by_document": 0}
    events = [
        done("lora", trained=[{"rows": 10, "left_out": 50}]),
        done("hybrid", account=full, trained=[{"rows": 60, "left_out": 0}]),
    ]
    accounts = recorded_accounts(plan(*steps), events)
    assert {name: account.lost for name, account in accounts.items()} == {
        "lora": True,
        "naive-stack": True,
        "hybrid": True,
    }


@pytest.mark.parametrize(("rows", "lost"), [(100, False), (99, True)])
def test_exactly_two_thirds_are_enough(rows: int, lost: bool) -> None:
    assert RowAccount(arm="lora", of=150, rows=rows).lost is lost
