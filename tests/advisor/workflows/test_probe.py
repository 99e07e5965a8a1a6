"""`tunewise probe` from flags to an answers file that plans, against a model behind a fake endpoint."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from advisor import cli
from advisor.probe import offer, probe
from advisor.probe.answers_from_probe import (
    answers_of_this_model,
    counted_answers,
    overridden_answers,
    without_probe,
)
from advisor.questionnaire.answers import Answers
from advisor.questionnaire.gather import complete_situation, flag_answers, with_answers_of
from rag.errors import BadInput
from rag.files import writer_lock
from runners.catalog.models import DEFAULT_MODEL
from runners.plan.schema import Plan, parse_plan
from runners.resources.machine import Detected, Machine

NAMES = [
    f"{first}{last}"
    for first in ("North", "South", "East", "West", "Old", "New")
    for last in ("gate", "field", "wick", "ford", "haven", "dale")
]


def answer_about_berths(body: dict[str, Any]) -> str:
    """Return the berths of the pier in the first passage; without passages an answer that knows nothing."""
    match = re.search(r"has (\d+) berths", body["messages"][-1]["content"])
    return f"It has {match[1]} berths." if match else "It is a lovely place."


@pytest.fixture
def piers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a document and a question for each pier, and examples in another style."""
    (tmp_path / "documents").mkdir()
    questions = []
    for number, name in enumerate(NAMES):
        text = f"# {name} Pier\n\nThe {name} Pier has {number + 20} berths for visitors.\n"
        (tmp_path / "documents" / f"{name}.md").write_text(text, "utf-8")
        question = f"How many berths has the {name} Pier?"
        questions.append({"question": question, "answers": [str(number + 20)], "doc_id": f"{name}.md"})
    examples = [
        {
            "prompt": f"When does boat {n} sail?",
            "completion": f"Boat {n} sails at {n % 12 + 1}. May I book it?",
        }
        for n in range(40)
    ]
    for file, rows in (("questions.jsonl", questions), ("examples.jsonl", examples)):
        (tmp_path / file).write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_command(*arguments: object, code: int = 0) -> Any:
    """Run the command line in this process."""
    done = CliRunner().invoke(cli.app, [str(part) for part in arguments])
    assert done.exit_code == code, done.output
    return done


def test_second_probe_beside_a_running_one_is_refused(piers: Path, server: Any) -> None:
    """Its work folder, which holds the answers so far, is not emptied."""
    answers = flag_answers([], questions=piers / "questions.jsonl", model=f"openai:tern@{server.url}")
    made_from = piers / "work" / "made_from.json"
    with writer_lock(made_from.parent):
        made_from.write_text("of another model", "utf-8")
        with pytest.raises(BadInput, match="is being written by another process"):
            probe.probe_model(answers, made_from.parent)
    assert made_from.read_text("utf-8") == "of another model"
    assert not server.seen


@pytest.mark.real  # the embedder
def test_probe_settles_answers_and_plan_shows_change(piers: Path, server: Any) -> None:
    server.answer = answer_about_berths
    name = f"openai:tern@{server.url}"
    files = ("--questions", "questions.jsonl", "--documents", "documents", "--examples", "examples.jsonl")
    outcome = json.loads(run_command("probe", *files, "--model", name, "--limit", 12, "--json").stdout)
    assert outcome["proxy"] is None
    assert {
        mode: (outcome["shares"][mode]["hits"], outcome["shares"][mode]["n"])
        for mode in ("closed-book", "open-book")
    } == {"closed-book": (0, 12), "open-book": (12, 12)}
    assert outcome["shares"]["stop_rule"]["n"] == 10
    assert outcome["set"] == {"prompting_pass_rate": 0.0, "task_needs_facts": "new", "behaviour_gap": "high"}
    assert set(outcome["recommendation"]["settled"]) == set(outcome["set"])
    assert sorted(path.name for path in piers.iterdir()) == [
        "documents",
        "examples.jsonl",
        "probe.yaml",
        "questions.jsonl",
    ]
    asked = {body["messages"][-1]["content"] for body in server.seen}
    assert len([text for text in asked if text.startswith("How many")]) == 12

    written = yaml.safe_load((piers / "probe.yaml").read_text("utf-8"))
    assert written["documents"] == "documents"
    assert written["behaviour_gap"]["source"] == "probed"
    assert written["behaviour_gap"]["note"].startswith(
        f"probe of {name}: in your style with a prompt alone: 0 of 22"
    )
    planned = run_command("plan", "--yes", "--answers", "probe.yaml", "--out", "plan.yaml", "--json")
    plan = json.loads(planned.stdout)
    assert plan["probe"]["settled"]["task_needs_facts"]["value"] == "new"
    assert plan["profile"]["behaviour_gap"]["source"] == "probed"
    shown = run_command("plan", "--yes", "--answers", "probe.yaml", "--out", "plan.yaml")
    assert "what the probe changed" in shown.output


def test_interrupted_probe_continues_with_its_replies(piers: Path, server: Any) -> None:
    server.answer = answer_about_berths
    line = (
        "probe",
        "--questions",
        "questions.jsonl",
        "--examples",
        "examples.jsonl",
        "--limit",
        6,
        "--model",
        f"openai:tern@{server.url}",
    )
    server.faults = [None] * 6 + [lambda handler: handler.reply(401, {"error": {"message": "no"}})] * 20
    run_command(*line, code=3)
    replies = (piers / ".probe.work" / "answers.jsonl").read_text("utf-8").splitlines()
    assert len(replies) == 6
    server.faults, before = [], len(server.seen)
    run_command(*line)
    assert len(server.seen) - before == 10  # the examples alone
    assert not (piers / ".probe.work").exists()


def test_interrupted_probe_begins_again_with_other_files(piers: Path, server: Any) -> None:
    """Its journal holds the replies by their place in the file of examples."""
    line = ("probe", "--examples", "examples.jsonl", "--model", f"openai:tern@{server.url}")
    server.faults = [None] * 6 + [lambda handler: handler.reply(401, {"error": {"message": "no"}})] * 20
    run_command(*line, code=3)
    rows = (piers / "examples.jsonl").read_text("utf-8")
    (piers / "examples.jsonl").write_text(rows.replace("When does", "At what hour does"), "utf-8")
    server.faults, before = [], len(server.seen)
    run_command(*line)
    assert len(server.seen) - before == 10


def test_answers_of_a_person_override_the_probe() -> None:
    answers = Answers().put("file", {"behaviour_gap": "low", "must_cite": True})
    answers = answers.put(
        "probed", {"behaviour_gap": "high", "task_needs_facts": "new"}, "probe of tern: 0 of 9"
    )
    assert list(counted_answers(answers)) == ["task_needs_facts"]
    ((own, probed),) = overridden_answers(answers).values()
    assert (own.value, probed.value) == ("low", "high")
    assert "behaviour_gap" in without_probe(answers)
    assert "task_needs_facts" not in without_probe(answers)


def test_probe_without_questions_exits_2(piers: Path) -> None:
    assert "nothing to ask" in str(run_command("probe", "--documents", "documents", code=2).stderr)
    run_command("probe", "--questions", "nowhere.jsonl", code=3)


def test_probe_obeys_data_must_stay_local(piers: Path) -> None:
    refused = run_command(
        "probe",
        "--questions",
        "questions.jsonl",
        "--model",
        "openai:tern@https://models.example/v1",
        "--set",
        "data_must_stay_local=yes",
        code=3,
    )
    assert "must stay" in refused.stderr


def plan_and_profile(model: str, laptop: Machine) -> tuple[Plan, Any]:
    """Return a plan without steps for a model, and the profile it is made for."""
    body = {
        "name": "p",
        "choice": "prompting",
        "model": {"name": model},
        "data": {},
        "steps": [],
        "weights": {"style": 1},
    }
    return parse_plan(body), complete_situation(Answers().put("flag", {"model": model}), laptop).profile


def test_probe_uses_default_model_as_proxy(laptop: Machine) -> None:
    plan, profile = plan_and_profile("qwen3-8b", laptop)
    chosen = probe.choose_probed_model(plan, profile, laptop, 100)
    assert chosen.model.name == "smollm2-135m-instruct"
    assert "qwen3-8b" in chosen.why
    plan, profile = plan_and_profile("smollm2-135m-instruct", laptop)
    assert probe.choose_probed_model(plan, profile, laptop, 100).why == ""


def test_too_large_checks_gpu_memory_and_cpu_hours(laptop: Machine) -> None:
    _, profile = plan_and_profile("qwen3-8b", laptop)

    def card(gib: float) -> Machine:
        return replace(laptop, gpu_kind=Detected("cuda", ""), gpu_memory_gib=Detected(gib, ""))

    assert offer.too_large(profile, card(80), 100) == ""
    assert "are free" in offer.too_large(profile, card(8), 100)
    _, small = plan_and_profile("smollm2-135m-instruct", laptop)
    assert offer.too_large(small, laptop, 100) == ""
    assert "hours without a GPU" in offer.too_large(small, laptop, 100_000)


def test_answers_of_another_models_probe_are_dropped() -> None:
    note = "probe of smollm2-135m-instruct: right from memory: 0 of 9"
    probed = Answers().put("probed", {"task_needs_facts": "new"}, note)
    unchanged, note_line = answers_of_this_model(probed)
    assert (unchanged, note_line) == (probed, "")
    remaining, note_line = answers_of_this_model(probed.put("flag", {"model": "qwen3-8b"}))
    assert "task_needs_facts" not in remaining
    assert "measured with smollm2-135m-instruct" in note_line


def test_plan_probes_first_and_carries_what_was_measured(piers: Path, server: Any) -> None:
    """Without asking; the plan holds the measurements, and a change of another answer keeps them."""
    server.answer = answer_about_berths
    files = ("--questions", "questions.jsonl", "--examples", "examples.jsonl")
    model = f"openai:tern@{server.url}"
    done = json.loads(run_command("plan", *files, "--model", model, "--probe", "--json").stdout)
    assert done["probed_now"]["set"]["behaviour_gap"] == "high"
    assert done["probe"]["settled"]["behaviour_gap"]["value"] == "high"
    assert done["probe"]["facts"]["passes"] == {"right": 0, "n": 22}
    assert done["probe"]["probability"] == done["probability"]
    assert done["probe_offer"] is None
    assert "few_shot" not in done["probe"]["facts"]
    assert any("an endpoint is not asked again" in line for line in done["probed_now"]["left_out"])
    assert sorted(path.name for path in piers.glob("*")) == [
        "documents",
        "examples.jsonl",
        "plan.forecast.json",
        "plan.yaml",
        "questions.jsonl",
    ]
    assert not (piers / ".plan.work").exists()
    recorded = yaml.safe_load((piers / "plan.yaml").read_text("utf-8"))["answers"]["probe"]
    assert recorded["source"] == "probed"
    assert recorded["value"]["passes"] == {"right": 0, "n": 22}
    changed = with_answers_of(Answers(), piers / "plan.yaml").put("flag", {"call_volume": "low"})
    assert complete_situation(changed).profile.probe.to_json() == done["probe"]["facts"]
    trial = json.loads((piers / "plan.forecast.json").read_text("utf-8"))["predicted"]["trial"]
    prompting = next(row for row in trial["arms"] if row["arm"] == "prompting")
    assert prompting["right"]["because"] == "probe: 0 of 22 right and in style by prompting alone"
    assert prompting["minutes"] > 0
    refused = run_command(
        "plan",
        *files,
        "--model",
        "openai:tern@https://models.example/v1",
        "--probe",
        "--json",
        "--set",
        "data_must_stay_local=yes",
        code=3,
    )
    assert "must stay" in refused.stderr


def test_plan_with_nothing_to_probe_goes_on(piers: Path) -> None:
    done = run_command("plan", "--yes", "--probe", "--documents", "documents", "--set", "must_cite=yes")
    assert "nothing to measure" in done.stderr
    assert (piers / "plan.yaml").is_file()


def test_unsure_plan_offers_to_probe(piers: Path) -> None:
    files = ("--questions", "questions.jsonl", "--examples", "examples.jsonl", *("--model", DEFAULT_MODEL))
    advice = json.loads(run_command("plan", "--yes", *files, "--json").stdout)
    offered = advice["probe_offer"]
    assert offered is not None
    assert offered["minutes"] >= 1
    assert offered["decides_between"][advice["choice"]] is None
    shown = run_command("plan", "--yes", *files)
    assert "add --probe to this command" in " ".join(shown.output.split())
    assert "chance of being best" not in shown.output
