"""Several models at endpoints: asked beside each other, within a limit of money, and gone on with where a host failed."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from rag.errors import BadInput, CannotRun
from rag.files import append_lines
from runners.inference.servers.spending import LEDGER, Spending, SpendingLimit, TokenPrice
from runners.plan.schema import Plan, parse_plan, write_plan
from runners.run_folder import read_journal, read_scores
from runners.trial.execute import run_plan
from tests.conftest import FakeEndpoint
from tests.runners.conftest import Warm
from tests.support.limits import HANG_S

QUESTIONS = 6
PRICE = {"usd_per_million_input": 100.0, "usd_per_million_output": 1000.0}


def grid(
    folder: Path, servers: Mapping[str, FakeEndpoint], prices: Mapping[str, Any], **changes: Any
) -> Plan:
    """Return a plan that asks each server by two arms, with files for it."""
    rows = [
        {"id": f"q{n}", "question": f"How many of part {n}?", "answers": [f"{n} pieces"]}
        for n in range(QUESTIONS)
    ]
    append_lines(folder / "test.jsonl", rows)
    append_lines(folder / "pairs.jsonl", [{"prompt": f"Part {n}?", "completion": f"{n}."} for n in range(9)])
    models = {
        alias: {"name": f"openai:tern-2@{server.url}", "at_once": 1, **prices}
        for alias, server in servers.items()
    }
    steps = [
        {"kind": "evaluate", "arm": f"{method}@{alias}", **({"shots": 1} if method == "few-shot" else {})}
        for alias in servers
        for method in ("prompting", "few-shot")
    ]
    return parse_plan(
        {
            "name": "grid",
            "choice": f"prompting@{next(iter(servers))}",
            "models": models,
            "data": {
                "examples": str(folder / "pairs.jsonl"),
                "test_questions": str(folder / "test.jsonl"),
            },
            "steps": steps,
            "weights": {"right": 1},
            **changes,
        }
    )


def counts(run: Path) -> dict[str, int]:
    """Return how many answers of each arm the journal has."""
    rows = read_journal(run / "trial" / "answers.jsonl")
    return {arm: sum(row["arm"] == arm for row in rows) for arm in dict.fromkeys(row["arm"] for row in rows)}


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    """Return the events of a kind in a run's log."""
    return [event for event in read_journal(run / "events.jsonl") if event.get("event") == kind]


def down(handler: BaseHTTPRequestHandler) -> None:
    """Refuse the key, which no retry changes."""
    handler.reply(401, {"error": {"message": "no such key"}})  # type: ignore[attr-defined]


def test_hosts_are_asked_at_the_same_time(tmp_path: Path, endpoints: Callable[[], FakeEndpoint]) -> None:
    """Each host answers its first request only while the other one has one too."""
    servers = {"a": endpoints(), "b": endpoints()}
    both = threading.Barrier(2, timeout=HANG_S)
    for server in servers.values():
        server.faults = [lambda handler: (both.wait(), handler.reply(503, "wait"))[1]]  # type: ignore[attr-defined, func-returns-value]
    run_plan(grid(tmp_path, servers, {}), tmp_path / "run")
    assert set(counts(tmp_path / "run").values()) == {QUESTIONS}
    assert len(counts(tmp_path / "run")) == 4
    beside = {event["step"] for event in events(tmp_path / "run", "step.done")}
    assert beside == {f"evaluate:{method}@{alias}" for method in ("prompting", "few-shot") for alias in "ab"}


def test_host_that_fails_leaves_its_arms_incomplete_until_the_run_goes_on(
    tmp_path: Path, endpoints: Callable[[], FakeEndpoint]
) -> None:
    servers = {"a": endpoints(), "b": endpoints()}
    plan, out = grid(tmp_path, servers, {}), tmp_path / "run"
    asked = 0

    def answer(body: dict[str, Any]) -> str:
        nonlocal asked
        asked += 1
        if asked >= 3:
            servers["b"].faults = [down] * 9
        return "2 pieces"

    servers["b"].answer = answer
    run_plan(plan, out)
    scored = set(read_scores(out)["arms"])
    assert scored == {"prompting@a", "few-shot@a"}
    incomplete = {event["arm"]: event for event in events(out, "arm.incomplete")}
    assert set(incomplete) == {"prompting@b", "few-shot@b"}
    assert "401" in incomplete["prompting@b"]["reason"]
    first = incomplete["prompting@b"]
    assert (first["answered"], first["questions"]) == (3, QUESTIONS)
    servers["b"].faults = []
    servers["b"].answer = lambda body: "2 pieces"
    seen = {alias: len(server.seen) for alias, server in servers.items()}
    run_plan(plan, out, resume=True)
    assert set(read_scores(out)["arms"]) == {f"{m}@{s}" for m in ("prompting", "few-shot") for s in "ab"}
    assert len(servers["a"].seen) == seen["a"]
    assert len(servers["b"].seen) == seen["b"] + 2 * QUESTIONS - 3


def test_limit_of_money_is_kept_and_a_higher_one_goes_on(
    tmp_path: Path, endpoints: Callable[[], FakeEndpoint]
) -> None:
    """Both hosts share one limit; what was paid for is not asked again."""
    servers = {"a": endpoints(), "b": endpoints()}
    for server in servers.values():
        server.answer = lambda body: "2 pieces"
    plan, out = grid(tmp_path, servers, PRICE, max_new_tokens=8, most_usd=0.05), tmp_path / "run"
    stated: list[str] = []
    run_plan(plan, out, on_event=lambda event: stated.append(str(event.get("reason", ""))))
    ledger = read_journal(out / "trial" / LEDGER)
    spent = sum(row["usd"] for row in ledger)
    assert 0.03 < spent <= 0.05
    assert any("at most 0.05 USD in all" in text for text in stated)
    incomplete = events(out, "arm.incomplete")
    assert incomplete
    assert all("the limit of 0.05 USD is reached" in event["reason"] for event in incomplete)
    assert len(ledger) == sum(len(server.seen) for server in servers.values())
    run_plan(plan.model_copy(update={"most_usd": 5.0}), out, resume=True)
    assert set(counts(out).values()) == {QUESTIONS}
    assert sum(len(server.seen) for server in servers.values()) == 4 * QUESTIONS
    bodies = [json.dumps(body["messages"]) for server in servers.values() for body in server.seen]
    assert all(bodies.count(body) == 2 for body in bodies)  # once by each host


def test_run_whose_arms_are_all_incomplete_ends_with_the_reasons(
    tmp_path: Path, endpoints: Callable[[], FakeEndpoint]
) -> None:
    servers = {"a": endpoints(), "b": endpoints()}
    for server in servers.values():
        server.faults = [down] * 9
    with pytest.raises(CannotRun, match=r"prompting@a, few-shot@a: tern-2 .*401: no such key; prompting@b"):
        run_plan(grid(tmp_path, servers, {}), tmp_path / "run")


def test_missing_key_and_price_of_one_host_are_said_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = parse_plan(
        {
            "name": "grid",
            "choice": "prompting@big",
            "models": {"big": "openai:m@https://api.example.com/v1", "own": "openai:m@http://127.0.0.1:9/v1"},
            "data": {"test_questions": str(tmp_path / "test.jsonl")},
            "steps": [{"kind": "evaluate", "arm": "prompting@big"}],
            "weights": {"right": 1},
            "most_usd": 1,
        }
    )
    append_lines(
        tmp_path / "test.jsonl", [{"question": f"Where is {n}?", "answers": ["here"]} for n in range(4)]
    )
    with pytest.raises(BadInput, match=r"there is no key for api\.example\.com"):
        run_plan(plan, tmp_path / "run")
    monkeypatch.setenv("TUNEWISE_API_KEYS", "api.example.com=EXAMPLE_KEY")
    monkeypatch.setenv("EXAMPLE_KEY", "not-sent")
    assert not (tmp_path / "run").exists()
    with pytest.raises(BadInput, match=r"no price of m at api\.example\.com"):
        run_plan(plan, tmp_path / "run")


def test_reservations_wait_for_each_other_and_keep_the_limit(tmp_path: Path) -> None:
    """Of 20 requests at once that may cost 1 USD and cost half, a limit of 5 admits nine."""
    spending = Spending(tmp_path / LEDGER, 5.0)
    meter = spending.meter("m", TokenPrice(read=0.0, written=500_000.0))
    refused: list[SpendingLimit] = []

    def ask() -> None:
        try:
            meter.settle(meter.reserve(0, 2), 0, 1)
        except SpendingLimit as limit:
            refused.append(limit)

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (spending.spent, len(refused)) == (4.5, 11)
    assert Spending(tmp_path / LEDGER, 5.0).spent == 4.5
    meter.release(meter.reserve(0, 1))
    assert spending.spent == 4.5


def test_run_killed_between_any_two_answers_pays_for_none_twice(
    tmp_path: Path, endpoints: Callable[[], FakeEndpoint], warm: Warm
) -> None:
    servers = {"a": endpoints(), "b": endpoints()}
    plan, whole, out = grid(tmp_path, servers, PRICE), tmp_path / "whole", tmp_path / "killed"
    write_plan(plan, tmp_path / "plan.yaml")
    one_at_a_time = threading.Lock()
    answered: list[str] = []
    kill_at = {3, 8, 11, 16, 22}
    pids: list[int] = []

    def answer(body: dict[str, Any]) -> str:
        client = len(pids)
        with one_at_a_time:
            if client < len(pids) or not pids[-1]:  # sent by a client that is dead, read late
                raise ConnectionAbortedError("its client was killed")
            deadline = time.monotonic() + HANG_S
            while sum(counts(out).values()) < len(answered) and time.monotonic() < deadline:
                time.sleep(0.01)
            if len(answered) in kill_at:
                kill_at.remove(len(answered))
                os.kill(pids[-1], signal.SIGKILL)
                pids.append(0)
                raise ConnectionAbortedError("its client was killed")
            answered.append(json.dumps(body["messages"]))
            return "2 pieces"

    for server in servers.values():
        server.answer = answer
        server.handle_error = lambda *args: None  # type: ignore[method-assign]
    codes: list[int] = []
    while not codes or codes[-1] < 0:
        resume = ["--resume"] if codes else []
        args = ["run", "plan.yaml", "--out", str(out), *resume]
        log = tmp_path / "log.txt"
        pids.append(warm.start(args=args, cwd=str(tmp_path), log=str(log)))
        codes.append(warm.wait())
    assert codes == [*[-signal.SIGKILL] * 5, codes[-1]]
    assert codes[-1] in (0, 5), log.read_text("utf-8")
    assert len(answered) == 4 * QUESTIONS
    assert all(answered.count(chat) == 2 for chat in answered)  # once by each host
    assert len(read_journal(out / "trial" / LEDGER)) == 4 * QUESTIONS
    for server in servers.values():
        server.answer = lambda body: "2 pieces"
    run_plan(plan, whole)
    same = [
        {
            arm: {id: row["combined"] for id, row in rows.items()}
            for arm, rows in read_scores(run)["arms"].items()
        }
        for run in (out, whole)
    ]
    assert same[0] == same[1]
