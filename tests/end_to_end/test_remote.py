"""The pipeline with a remote model: plan, run, ask and chat for the arms that need no weights."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from rag.errors import BadInput
from runners.plan.schema import parse_plan
from runners.runs.plan_models import ModelSource, named_models
from tests.support.tool_model import reader

pytestmark = pytest.mark.real  # the embedder

KEY = "sk-line-not-a-real-key"
ARMS = ("prompting", "few-shot", "long-context", "rag", "rag-few-shot")
DOCUMENTS = ("pets.md", "wifi.md", "parking.md", "bicycles.md")
QUESTION = "Can I take my dog on board?"


def answer_from_passage(body: dict[str, Any]) -> str:
    """Answer with the first sentence of the first passage; without passages, with a fixed text."""
    prompt = body["messages"][-1]["content"]
    passage = re.search(r"\[1\][^\n]*\n?(.+)", prompt)
    sentence = re.split(r"(?<=[.!?])\s", passage[1])[0] if passage else "I cannot say."
    return f"{sentence} Shall I look further?"


@pytest.fixture
def project(tmp_path: Path, example: Path, server: Any) -> tuple[Path, str]:
    """A folder with a few documents, with examples and questions about them; and the name of the model."""
    (tmp_path / "documents").mkdir()
    for name in DOCUMENTS:
        text = (example / "documents" / name).read_text("utf-8")
        (tmp_path / "documents" / name).write_text(text, "utf-8")
    rows = (example / "examples.jsonl").read_text("utf-8").splitlines()
    (tmp_path / "examples.jsonl").write_text("\n".join(rows[:8]) + "\n", "utf-8")
    questions = [json.loads(line) for line in (example / "questions.jsonl").read_text("utf-8").splitlines()]
    known = [q for q in questions if q.get("doc_id") in DOCUMENTS]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(q) + "\n" for q in known), "utf-8")
    server.answer = answer_from_passage
    return tmp_path, f"openai:tern-2@{server.url}"


def test_remote_model_is_planned_run_and_asked(
    project: tuple[Path, str], server: Any, tunewise: Callable[..., Any], read_rows: Callable[..., Any]
) -> None:
    folder, name = project
    environ = {"TUNEWISE_API_KEY": KEY, "TUNEWISE_API_HOST": "127.0.0.1"}
    planned = tunewise(
        "plan",
        "--yes",
        "--model",
        name,
        "--documents",
        "documents",
        "--examples",
        "examples.jsonl",
        "--questions",
        "questions.jsonl",
        "--set",
        "data_must_stay_local=yes",
        "--out",
        "plan.yaml",
        "--json",
        cwd=folder,
        **environ,
    )
    assert planned.returncode == 0, planned.stderr
    ranked = {row["method"]: row for row in json.loads(planned.stdout)["ranked"]}
    for method in ("lora", "qlora", "full", "hybrid"):
        assert not ranked[method]["feasible"]
        assert any("its weights are not here" in blocker["text"] for blocker in ranked[method]["blockers"])
    assert server.seen == []

    done = tunewise("run", "plan.yaml", "--out", "run", "--json", cwd=folder, **environ)
    assert done.returncode in (0, 5), done.stderr
    report = json.loads(done.stdout)
    assert sorted(arm["arm"] for arm in report["arms"]) == sorted(ARMS)
    assert report["verdict"]["winner"] in ARMS
    rows = read_rows(folder / "run" / "trial" / "answers.jsonl")
    assert {row["finish"] for row in rows} <= {"stop", "refused"}
    asked = [row for row in rows if row["finish"] == "stop"]
    settings = json.loads((folder / "run" / "trial" / "prompts.json").read_text("utf-8"))["settings"]
    on_dev = sum(each["asked"] for each in settings.values())
    assert len(asked) + on_dev == len(server.seen), "with so few questions no other example bank is tried"
    whole = [row for row in asked if row["arm"] == "long-context"]
    assert len(whole) == len({row["id"] for row in rows})
    assert all({c["doc"] for c in row["context"]} == set(DOCUMENTS) for row in whole)
    assert any(row["citations"] for row in whole)
    assert all(row["completion_tokens"] == len(row["answer"].split()) and row["seconds"] > 0 for row in asked)
    assert any(row["citations"] for row in asked if row["arm"] == "rag")
    assert {(body["temperature"], body["seed"]) for body in server.seen} == {(0.0, 0)}
    assert set(server.keys) == {f"Bearer {KEY}"}
    manifest = json.loads((folder / "run" / "manifest.json").read_text("utf-8"))
    assert manifest["models"] == [{"model": "tern-2", "endpoint": f"127.0.0.1:{server.server_port}"}]
    files = [p for p in folder.rglob("*") if p.is_file()]
    assert not [p for p in files if KEY.encode() in p.read_bytes()]
    assert KEY not in planned.stdout + planned.stderr + done.stdout + done.stderr

    asked_once = tunewise("ask", "run", QUESTION, "--arm", "rag", "--json", cwd=folder, **environ)
    assert asked_once.returncode == 0, asked_once.stderr
    answer = json.loads(asked_once.stdout)
    assert answer["refused"] or answer["usage"]["prompt_tokens"] > 0
    chat = tunewise(
        "chat", "run", "--arm", "prompting", "--json", cwd=folder, stdin=f"{QUESTION}\n" * 2, **environ
    )
    assert chat.returncode == 0, chat.stderr
    answers = [json.loads(line) for line in chat.stdout.splitlines()]
    assert [(row["question"], row["arm"]) for row in answers] == [(QUESTION, "prompting")] * 2
    assert all(row["answer"].startswith("I cannot say.") for row in answers)


def test_wrong_key_ends_the_run_without_a_traceback(
    project: tuple[Path, str], server: Any, tunewise: Callable[..., Any]
) -> None:
    folder, name = project
    write_plan(folder, name)
    server.faults = [lambda handler: handler.reply(401, {"error": {"message": f"bad key {KEY}"}})] * 9
    done = tunewise(
        "run", "plan.yaml", "--out", "run", cwd=folder, TUNEWISE_API_KEY=KEY, TUNEWISE_API_HOST="127.0.0.1"
    )
    assert done.returncode == 3, done.stderr
    assert "answered 401: bad key ***" in done.stderr
    assert "TUNEWISE_API_KEY" in done.stderr
    assert KEY not in done.stderr
    assert "Traceback" not in done.stderr


def test_imported_run_asks_its_endpoint_only_once_it_is_allowed(
    project: tuple[Path, str], server: Any, tunewise: Callable[..., Any]
) -> None:
    """On 477b318 the first `ask` of an imported run sent question and key to the host that its author chose."""
    folder, name = project
    write_plan(folder, name)
    done = tunewise("run", "plan.yaml", "--out", "run", cwd=folder)
    assert done.returncode in (0, 5), done.stderr
    packed = tunewise("export", "run", "--to", "bundle", "--out", "packed", cwd=folder)
    assert packed.returncode == 0, packed.stderr
    host = f"127.0.0.1:{server.server_port}"
    back = tunewise("export", "packed", "--to", "run", "--out", "back", cwd=folder)
    assert back.returncode == 0, back.stderr
    assert f"it asks {host} only after: tunewise runs allow back" in back.stdout
    before = len(server.seen)
    refused = tunewise("ask", "back", QUESTION, "--arm", "prompting", cwd=folder)
    assert refused.returncode == 3, refused.stderr
    assert host in refused.stderr
    assert "tunewise runs allow" in refused.stderr
    assert len(server.seen) == before
    wrong = tunewise("runs", "allow", "back", "other.example", cwd=folder)
    assert wrong.returncode == 2
    assert host in wrong.stderr
    allowed = tunewise("runs", "allow", "back", "--json", cwd=folder)
    assert json.loads(allowed.stdout)["allowed"] == [host]
    asked = tunewise("ask", "back", QUESTION, "--arm", "prompting", cwd=folder)
    assert asked.returncode == 0, asked.stderr
    assert len(server.seen) == before + 1


def write_plan(folder: Path, name: str, **changes: Any) -> dict[str, Any]:
    """Write a plan of one arm that needs no index, and return it."""
    body: dict[str, Any] = {
        "name": "remote",
        "choice": "prompting",
        "model": {"name": name},
        "data": {"questions": "questions.jsonl"},
        "steps": [{"kind": "evaluate", "arm": "prompting"}],
        "weights": {"token_f1": 1},
        **changes,
    }
    (folder / "plan.yaml").write_text(yaml.safe_dump(body), "utf-8")
    return body


def test_local_data_and_remote_training_are_refused_before_sending(tmp_path: Path) -> None:
    outside = "openai:tern-2@https://api.example.com/v1"
    local = {"data_must_stay_local": {"value": True, "source": "flag"}}
    for answers in (local, {"hosted_api_allowed": {"value": False, "source": "flag"}}):
        with pytest.raises(BadInput, match="must stay local"):
            ModelSource(plan=parse_plan(write_plan(tmp_path, outside, answers=answers))).bases()
    assert ModelSource(plan=parse_plan(write_plan(tmp_path, outside))).bases()
    near = "openai:tern-2@http://192.168.0.7:8000/v1"
    plan = parse_plan(write_plan(tmp_path, near, answers=local))
    assert ModelSource(plan=plan).bases()
    assert named_models(plan) == [{"model": "tern-2", "endpoint": "192.168.0.7:8000"}]
    steps = [{"kind": "train", "arm": "lora"}, {"kind": "evaluate", "arm": "lora", "weights": "lora"}]
    tuned = write_plan(tmp_path, near, steps=steps, choice="lora", data={"questions": "q", "examples": "e"})
    with pytest.raises(BadInput, match="lora cannot be trained"):
        ModelSource(plan=parse_plan(tuned)).bases()


def test_model_that_looks_things_up_is_run_asked_and_reported(
    project: tuple[Path, str], server: Any, tunewise: Callable[..., Any], read_rows: Callable[..., Any]
) -> None:
    """Without an index: nothing is built, and nothing is embedded."""
    folder, name = project
    server.answer = reader
    steps = [
        {"kind": "evaluate", "arm": "prompting"},
        {"kind": "evaluate", "arm": "agentic-search", "retrieval": True, "passages": "looked_up"},
    ]
    data = {"questions": "questions.jsonl", "documents": "documents"}
    write_plan(folder, name, steps=steps, data=data)
    environ = {"TUNEWISE_API_KEY": KEY, "TUNEWISE_API_HOST": "127.0.0.1"}
    done = tunewise("run", "plan.yaml", "--out", "run", "--json", cwd=folder, **environ)
    assert done.returncode in (0, 5), done.stderr
    (arm,) = [arm for arm in json.loads(done.stdout)["arms"] if arm["arm"] == "agentic-search"]
    assert arm["lookups"]["requests"]["most"] <= 8
    rows = [row for row in read_rows(folder / "run" / "trial" / "answers.jsonl") if "lookups" in row]
    assert len(rows) == arm["n"]
    assert read_rows(folder / "run" / "trial" / "lookups.jsonl")
    assert not (folder / "run" / "index").exists()
    asked = tunewise("ask", "run", QUESTION, "--arm", "agentic-search", "--json", cwd=folder, **environ)
    assert asked.returncode == 0, asked.stderr
    assert json.loads(asked.stdout)["lookups"]["calls"] >= 1
    said = tunewise("ask", "run", QUESTION, "--arm", "agentic-search", cwd=folder, **environ)
    assert "looked up: " in said.stdout + said.stderr
    nothing = tunewise("ask", "run", "Who owns Zebra?", "--arm", "agentic-search", cwd=folder, **environ)
    assert nothing.returncode == 0, nothing.stderr
    assert "it read 0 passages" in nothing.stdout, "a refusal says what it rests on"
    shown = tunewise("report", "run", cwd=folder)
    assert "ended at a limit" in shown.stdout + (folder / "run" / "report.html").read_text("utf-8")
    why = tunewise("why", "run", "--arm", "agentic-search", cwd=folder)
    assert why.returncode == 2
    assert "read its calls in" in why.stderr
    turns = f"{QUESTION}\nAnd on Sundays?\n"
    chat = tunewise("chat", "run", "--arm", "agentic-search", cwd=folder, stdin=turns, **environ)
    assert chat.returncode == 0, chat.stderr
    assert "asked as" not in chat.stderr
    told = [turn["content"] for turn in server.seen[-2]["messages"] if turn["role"] == "user"]
    assert told[:2] == [QUESTION, "And on Sundays?"], "the model sees the turns"
    files = [p for p in folder.rglob("*") if p.is_file()]
    assert not [p for p in files if KEY.encode() in p.read_bytes()]
