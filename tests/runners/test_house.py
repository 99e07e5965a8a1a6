"""The learned house style: a planted difference is found, none is not, and no test question is asked for it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from runners.data import Example, Question
from runners.execution import quick_plan, run_plan
from runners.house import LEAST, MOST, TELLS, House, learn, masked, shape
from runners.plan import parse_plan
from runners.rundir import read_lines
from runners.untuned import as_question, pick

BOATS = tuple(f"boat {n}" for n in range(24))


def house(boat: str) -> str:
    return f"{boat.capitalize()} sails at noon from the old pier. May I book a seat for you?"


def model(boat: str) -> str:
    return f"Sure! As an assistant, I think that {boat} sails at noon from the old pier, probably."


def learnt() -> House:
    return learn([house(b) for b in BOATS], [model(b) for b in BOATS])


def test_a_planted_difference_is_found_and_carries_over_to_other_facts() -> None:
    found = learnt()
    assert found.auroc == 1
    assert found.score is not None
    assert found.score("The museum closes at 5. May I book a ticket for you?") > 0.6
    assert found.score("Sure! As an assistant, I think that the museum closes at 5, probably.") < 0.2
    assert found.score(house("boat 99")) > 0.9
    assert found.score(model("boat 99")) < 0.1
    for text in ("", "犬は可", "x" * 5000, "\n\n- a\n- b"):
        assert 0 <= found.score(text) <= 1


def test_the_same_replies_cannot_be_told_apart_and_give_no_score() -> None:
    """Half of either side is written in either way: nothing of it says whose reply it is."""
    texts = [house(b) if n % 2 else model(b) for n, b in enumerate(BOATS)]
    others = [house(b) if n % 4 < 2 else model(b) for n, b in enumerate(BOATS)]
    found = learn(texts, others)
    assert found.auroc is not None
    assert found.auroc < TELLS
    assert found.score is None
    assert found.text.startswith("no house-style score")
    same = learn(texts, texts)
    assert same.score is None


def test_few_pairs_and_odd_ones_are_refused() -> None:
    found = learn(["a"] * (LEAST - 1), ["b"] * (LEAST - 1))
    assert (found.auroc, found.score) == (None, None)
    assert f"at least {LEAST}" in found.text
    with pytest.raises(ValueError, match="1 replies of the house, 2"):
        learn(["a"], ["b", "c"])


def test_what_is_learnt_is_the_same_each_time() -> None:
    a, b = learnt(), learnt()
    assert a.to_json() == b.to_json()
    assert a.score is not None
    assert b.score is not None
    assert a.score("Boat 3 sails. May I?") == b.score("Boat 3 sails. May I?")


def test_digits_and_shape() -> None:
    assert masked("At 14:30, ٣") == "At 00:00, 0"
    words, sentences, lines, asks, ends, *_, points = shape("Hello, all.\n- one\n2. two?")
    assert (words, sentences) == (pytest.approx(math.log(7) / 6), 3 / 6)
    assert (lines, asks, ends, points) == (2 / 6, 1, 0, 2 / 3)
    for text in ("", "!" * 900, "A\n" * 900, "- a\n" * 9):
        assert all(0 <= number <= 1 for number in shape(text))


def chat(number: int, system: str = "") -> Example:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    last = [{"role": "user", "content": f"When does {BOATS[number % 24]} sail, case {number}?"},
            {"role": "assistant", "content": house(BOATS[number % 24])}]  # fmt: skip
    first = [{"role": "system", "content": system}] if system else []
    return Example((*first, *turns, *last), {}, number)


def test_examples_are_drawn_by_the_seed_and_keep_their_turns() -> None:
    rows = [chat(n, "Be brief.") for n in range(50)]
    raw = Example(({"role": "assistant", "content": "a text"},), {}, 99)
    drawn = pick([*rows, raw], 0)
    assert len(drawn) == MOST
    assert raw not in drawn
    assert pick(rows[::-1], 0) == drawn
    assert pick(rows, 1) != drawn
    asked = as_question(rows[3])
    assert asked.question == "When does boat 3 sail, case 3?"
    assert (asked.system, [turn["content"] for turn in asked.history]) == ("Be brief.", ["Hi", "Hello."])
    assert isinstance(asked, Question)


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


@pytest.fixture
def desk(tmp_path: Path, server: Any) -> dict[str, Any]:
    """A plan of one arm behind a server that answers as an untuned model would."""
    server.answer = lambda body: model(
        body["messages"][-1]["content"].split(" sail")[0].removeprefix("When does ")
    )
    pairs = [{"prompt": f"When does {b} sail?", "completion": house(b)} for b in BOATS[:16]]
    asked = [{"question": f"When does ship {n} sail?", "reference": house(f"ship {n}")} for n in range(4)]
    data = {
        "examples": write(tmp_path / "pairs.jsonl", pairs),
        "test_questions": write(tmp_path / "test.jsonl", asked),
    }
    return {
        "name": "desk", "choice": "prompting", "model": {"name": f"openai:tern-2@{server.url}"}, "data": data,
        "steps": [{"kind": "evaluate", "arm": "prompting"}], "weights": {"token_f1": 1, "house_style": 1},
        "house_style": True,
    }  # fmt: skip


def test_a_quick_run_leaves_it_out_where_it_weighs_nothing(desk: Any) -> None:
    assert quick_plan(parse_plan(desk)).house_style
    assert not quick_plan(parse_plan({**desk, "weights": {"token_f1": 1}})).house_style


def test_a_run_learns_from_examples_only_and_asks_nothing_twice(
    desk: Any, server: Any, tmp_path: Path
) -> None:
    told: list[dict[str, Any]] = []
    run = run_plan(parse_plan(desk), tmp_path / "run", on_event=told.append)
    asked = [body["messages"][-1]["content"] for body in server.seen]
    assert len(asked) == 4 + 16
    assert {row["question"] for row in read_lines(run.path / "house" / "answers.jsonl")} == {
        f"When does {b} sail?" for b in BOATS[:16]
    }
    (event,) = [e for e in told if e["event"] == "house.learnt"]
    assert event["asked"] == 16
    assert "area under the curve is 1.00" in event["reason"]
    scores = run.path / "trial" / "scores.json"
    assert '"house_style": 0.0' in scores.read_text("utf-8")
    scores.unlink()
    run_plan(parse_plan(desk), tmp_path / "run", resume=True)
    assert len(server.seen) == 20
    assert scores.is_file()
