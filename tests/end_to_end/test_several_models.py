"""A run that compares two local models of different families and an endpoint, through every verb that takes an arm."""

from __future__ import annotations

import json
import re
import shutil
import signal
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

import tunewise as package
from advisor.mcp_server.services import refuse_endpoints
from rag.errors import BadInput, UsageProblem
from runners.run_folder import TRIAL, read_journal, read_run_plan
from runners.runs.loaded_models import LoadedLimit
from runners.runs.opened import Opening, OpenRun
from runners.serving.served_models import served_models
from tests.conftest import FakeEndpoint
from tests.runners.export.conftest import (
    NAMES,
    SYSTEM,
    build_model,
    evaluate_step,
    train_step,
    vocabulary_texts,
)
from tests.runners.export.conftest import write_rows as write
from tests.support.command_server import Command
from tests.support.limits import HANG_S

Run = Callable[..., Any]
QUESTION = "How many berths has the Amber Pier?"
LOCAL_ARMS = ("prompting@a", "few-shot@b", "rag@a", "lora@a", "lora@b", "router@b")


@dataclass(frozen=True)
class Project:
    """A folder with two models, data, a plan and its finished run."""

    folder: Path
    run: Path
    endpoint: FakeEndpoint
    tunewise: Run

    def command(self, *arguments: object, fails: str = "") -> str:
        """Carry out a command in the folder and return what it prints; one that fails says so in ``fails``."""
        done = self.tunewise(*arguments, cwd=self.folder)
        assert (done.returncode != 0) == bool(fails), done.stderr
        assert fails in done.stderr, done.stderr
        return str(done.stdout)


def _answer(body: dict[str, Any]) -> str:
    """Answer from the passage, else not at all."""
    found = re.search(r"has (\d+) berths", body["messages"][-1]["content"])
    return f"It has {found[1]} berths." if found else "I cannot say."


@pytest.fixture(scope="module")
def endpoint() -> Iterator[FakeEndpoint]:
    """The third model of the plan."""
    server = FakeEndpoint()
    server.answer = _answer
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory,
    little_bert: Callable[..., Path],
    endpoint: FakeEndpoint,
    tunewise: Run,
) -> Project:
    """The folder, with the run carried out by `tunewise run`."""
    from tokenizers import Tokenizer, pre_tokenizers, trainers
    from tokenizers.models import WordPiece

    folder = tmp_path_factory.mktemp("several")
    build_model(folder / "llama")
    build_model(folder / "qwen", "qwen2", "qwen2", hidden_size=32)
    tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    words = trainers.WordPieceTrainer(
        special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"], show_progress=False
    )
    tokenizer.train_from_iterator(vocabulary_texts(), words)
    (folder / "embedder").mkdir()
    little_bert(folder / "embedder", tokenizer, 128)
    (folder / "documents").mkdir()
    for n, name in enumerate(NAMES):
        text = f"# {name} Pier\n\nThe {name} Pier has {n + 20} berths for visitors.\n"
        (folder / "documents" / f"{name.lower()}.md").write_text(text, "utf-8")
    facts = {
        f"How many berths has the {x} Pier?": f"The {x} Pier has {n + 20} berths."
        for n, x in enumerate(NAMES)
    }
    rows = [{"prompt": question, "completion": fact} for question, fact in facts.items()]
    held_out = [
        {"question": q.replace("has", "does it have at"), "reference": fact} for q, fact in facts.items()
    ]
    plan = {
        "schema": 1,
        "name": "several",
        "choice": "lora@b",
        "models": {
            "a": str(folder / "llama"),
            "b": {"name": str(folder / "qwen")},
            "c": f"openai:tern-2@{endpoint.url}",
        },
        "embedder": {"name": str(folder / "embedder")},
        "data": {
            "documents": "documents",
            "examples": write(folder / "examples.jsonl", rows),
            "questions": write(folder / "questions.jsonl", held_out[:3]),
            "test_questions": write(folder / "test.jsonl", held_out[4:]),
        },
        "prompts": {"system": SYSTEM},
        "steps": [
            {"kind": "index", "max_chunk_tokens": 64},
            train_step("lora@a", epochs=8),
            train_step("lora@b", epochs=8, seeds=[0, 3]),
            evaluate_step("prompting@a"),
            evaluate_step("few-shot@a", shots=1),
            evaluate_step("few-shot@b", shots=2, bank="chosen", budget=6),
            evaluate_step("nearest-reply", nearest_reply=True),
            evaluate_step("rag@a", retrieval=True),
            evaluate_step("rag@c", retrieval=True),
            evaluate_step("lora@a", weights="lora@a"),
            evaluate_step("lora@b", weights="lora@b"),
            evaluate_step("router@b", route={"first": "nearest-reply", "otherwise": "lora@b"}),
        ],
        "weights": {"token_f1": 1},
        "max_new_tokens": 12,
        "forgetting": {"prompts": 0},
    }
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False), "utf-8")
    made = Project(folder, folder / "run", endpoint, tunewise)
    made.command("run", "plan.yaml", "--out", "run")
    return made


def _ask(project: Project, arm: str, *flags: object) -> dict[str, Any]:
    return dict(json.loads(project.command("ask", "run", QUESTION, "--arm", arm, "--json", *flags)))


def test_served_arms_answer_as_asked_ones(project: Project, start_tunewise: Callable[..., Command]) -> None:
    asked = {arm: _ask(project, arm)["answer"] for arm in (*LOCAL_ARMS, "rag@c")}
    assert asked["lora@a"] != asked["lora@b"]
    assert asked["rag@c"].startswith("It has ")
    child = start_tunewise("serve", "run", "--arm", "lora@b", "--port", "0", cwd=project.folder)
    try:
        url, log = _listening(child)
        assert "kept in memory, each from its first request on: qwen, llama, together an estimated" in log
        rows = {row["id"]: row for row in httpx.get(f"{url}/v1/models", timeout=HANG_S).json()["data"]}
        assert {name: (row["root"], row["parent"]) for name, row in rows.items() if "lora" in name} == {
            **dict.fromkeys(("lora@a", "lora@a-s0"), ("llama", "llama")),
            **dict.fromkeys(("lora@b", "lora@b-s0", "lora@b-s3"), ("qwen", "qwen")),
        }
        assert [name for name, row in rows.items() if row["x_tunewise"]["kind"] == "base"] == [
            "llama",
            "qwen",
            "tern-2",
        ]
        assert rows["router@b"]["x_tunewise"]["loaded"] == rows["llama"]["x_tunewise"]["loaded"] == "kept"
        assert "loaded" not in rows["rag@c"]["x_tunewise"]
        health = httpx.get(f"{url}/health", timeout=HANG_S).json()["models"]
        assert health == {"on_demand": False, "loaded": ["qwen"]}
        body = {"messages": [{"role": "user", "content": QUESTION}]}
        for arm, answer in asked.items():
            replied = httpx.post(
                f"{url}/v1/chat/completions", json={**body, "model": arm}, timeout=HANG_S
            ).json()
            said = replied["choices"][0]["message"]
            assert answer in (said["content"], said["refusal"]), arm
            assert _ask(project, arm, "--server")["answer"] == answer
        assert httpx.get(f"{url}/health", timeout=HANG_S).json()["models"]["loaded"] == ["llama", "qwen"]
        page = httpx.get(f"{url}/", timeout=HANG_S).text
        assert "<dt>@b</dt><dd>answered with qwen</dd>" in page
    finally:
        child.send_signal(signal.SIGTERM)
        child.communicate()


def _listening(child: Command) -> tuple[str, str]:
    """Return the address of a server, once it listens, and what it has printed until then."""
    while child.poll() is None:
        log = child.printed()
        if match := re.search(r"on (http://\S+)", log):
            return match[1], log
    pytest.fail("".join(child.communicate()))


def test_models_that_do_not_fit_together_are_loaded_on_demand(project: Project) -> None:
    session = OpenRun.open(project.run).obtain()
    models, folders = session.models, session.models.obtained.folders(session.plan)
    a, b = models.local_models
    answers: dict[str, str] = {}
    for gib, both in ((0.0, False), (64.0, True)):
        models.limit = LoadedLimit(gib, {a: 1.0, b: 1.0})
        assert models.loads_on_demand is not both
        for arm in LOCAL_ARMS * 2:
            (answer,) = session.ask([QUESTION], session.arm(arm))
            assert answers.setdefault(arm, answer.text) == answer.text
        assert set(models.loaded) == ({a, b} if both else {b})
    from runners.resources.machine import detect_machine

    measured = LoadedLimit.of(session.plan, folders, detect_machine())
    assert measured.sizes.keys() == {a, b}
    assert not LoadedLimit(64.0, {a: 1.0}).fits([a, b]), "of b it is not known what it takes"


def test_exports_are_of_the_model_of_the_arm(project: Project) -> None:
    for target in ("peft", "ollama", "vllm"):
        made = json.loads(project.command("export", "run", "--arm", "lora@b", "--to", target, "--json"))
        folder = project.folder / made["out"]
        assert folder.name == f"several-lora-b-s0-{target}"
        assert any("several-lora-b, without the @ of lora@b" in note for note in made["notes"])
        card = (folder / "README.md").read_text("utf-8")
        assert 'base_model: "qwen"' in card
        assert "The arm lora@b, seed 0 of the plan several, on qwen." in card
        assert f"{project.folder}" not in card
    assert (
        "ollama create several-lora-b -f"
        in (project.folder / "exports/several-lora-b-s0-ollama/README.md").read_text()
    )
    assert "--lora-modules several-lora-b=" in made["line"]
    project.command("export", "run", "--arm", "lora@b", "--to", "provider-jsonl")


def test_bundle_waits_for_consent_and_finds_a_moved_model(project: Project, tmp_path: Path) -> None:
    project.command("export", "run", "--to", "bundle", "--out", tmp_path / "bundle")
    with zipfile.ZipFile(tmp_path / "bundle" / "several.zip") as archive:
        assert "run/adapters/lora@b-s3/adapter_config.json" in archive.namelist()
    run = tmp_path / "imported"
    said = project.command("export", tmp_path / "bundle" / "several.zip", "--to", "run", "--out", run)
    assert f"asks 127.0.0.1:{project.endpoint.server_port} only after" in said
    project.command("ask", run, QUESTION, "--arm", "rag@c", fails="came from a bundle")
    moved, gone = tmp_path / "moved", project.folder / "qwen"
    gone.rename(moved)
    try:
        ask = ("ask", run, QUESTION, "--arm", "lora@b", "--json")
        project.command(*ask, fails="--model ALIAS=FOLDER")
        project.command(
            *ask, "--model", moved, fails="does not say which of the plan's models is meant: a, b, c"
        )
        other = ("--model", f"b={project.folder / 'llama'}")
        project.command(*ask, *other, fails="is not the one recorded")
        project.command(*ask, "--model", f"c={moved}", fails="is an endpoint")
        answer = json.loads(project.command(*ask, "--model", f"b={moved}"))["answer"]
        session = OpenRun.open(run).obtain()
        served, _ = served_models(session, "lora@a")
        assert "rag@c" in served
        assert not [name for name, model in served.items() if model.root == "qwen"]
        assert session.ask([QUESTION], session.arm("lora@a"))[0].text != answer
        with pytest.raises(BadInput, match="qwen"):
            served_models(session, "lora@b")
        loaded = package.load(run, model=[f"b={moved}"])
        assert loaded.ask(QUESTION, "lora@b").text == answer
    finally:
        moved.rename(gone)
    assert _ask(project, "lora@b")["answer"] == answer


def test_recheck_with_another_model_leaves_the_other_arms(project: Project, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    other = tmp_path / "other"
    shutil.copytree(project.folder / "qwen", other)
    weights = load_file(other / "model.safetensors")
    name = next(name for name in weights if name.endswith("q_proj.weight"))
    save_file({**weights, name: weights[name] * 2}, other / "model.safetensors", {"format": "pt"})
    recheck = ("recheck", "run", "--all-arms", "--json", "--out", tmp_path / "out")
    project.command(*recheck, "--model", other, fails="does not say which of the plan's models is meant")
    requests = len(project.endpoint.seen)
    result = json.loads(project.command(*recheck, "--model", f"b={other}", "--yes"))
    (change,) = result["changes"]
    assert (change["kind"], change["arms"]) == ("model", ["few-shot@b", "lora@b", "router@b"])
    trained = {
        e["arm"] for e in read_journal(tmp_path / "out" / "events.jsonl") if e["event"] == "train.start"
    }
    assert trained == {"lora@b"}
    assert len(project.endpoint.seen) == requests, "its answers are taken over"
    present = read_run_plan(tmp_path / "out")
    assert [model.name for model in present.models.values()][:2] == [
        str(project.folder / "llama"),
        str(other),
    ]
    assert present.model == present.models["a"]


def test_one_arm_is_evaluated_explained_and_has_a_curve(project: Project, tmp_path: Path) -> None:
    project.command("eval", "run", "--questions", "questions.jsonl", "--arm", "rag@c")
    assert "answers of lora@b are wrong" in project.command("why", "run", "--arm", "lora@b")
    assert "LoRA" in project.command("explain", "lora@b")
    curve = ("curve", "run", "--arm", "lora@b", "--sizes", "8,10", "--seeds", 1, "--json")
    data = json.loads(project.command(*curve))
    assert (data["arm"], data["model"]) == ("lora@b", str(project.folder / "qwen"))
    assert [row["n"] for row in data["points"]] == [8, 10]
    answers = read_journal(project.run / "curves" / "lora@b" / TRIAL / "answers.jsonl")
    assert "lora-n8-s0@b" in {row["arm"] for row in answers}


def test_listings_and_reports_name_all_models(project: Project) -> None:
    shown = project.command("runs", "show", "run")
    assert re.search(r"^models   a \S+/llama, b \S+/qwen, c openai:tern-2@", shown, re.MULTILINE)
    listed = json.loads(project.command("runs", "list", ".", "--json"))["runs"]
    assert list(next(row for row in listed if row["name"] == "run")["models"]) == ["a", "b", "c"]
    project.command("doctor", "--bundle", "bug.zip", "--run", "run")
    with zipfile.ZipFile(project.folder / "bug.zip") as archive:
        outline = json.loads(archive.read("run.json"))["plan"]
    assert outline["choice"] == "lora@2"
    assert outline["models"] == ["<its own>", "<its own>", "<an endpoint>"]
    adapters = json.loads(project.command("adapters", "list", "run/adapters", "--json"))["adapters"]
    assert {Path(row["folder"]).name: Path(row["base"]).name for row in adapters} == {
        "lora@a-s0": "llama",
        "lora@b-s0": "qwen",
        "lora@b-s3": "qwen",
    }
    models = json.loads((project.run / "manifest.json").read_text("utf-8"))["models"]
    assert [row["model"].rpartition("/")[2] for row in models] == ["llama", "qwen", "tern-2"]


def test_incomplete_arm_is_listed_and_not_compared(project: Project, tmp_path: Path) -> None:
    run = tmp_path / "half"
    shutil.copytree(project.run, run)
    events = [event for event in read_journal(run / "events.jsonl") if event.get("step") != "evaluate:rag@c"]
    broken = {
        "event": "arm.incomplete",
        "arm": "rag@c",
        "reason": "it hung up",
        "answered": 2,
        "questions": 6,
    }
    write(run / "events.jsonl", [*events, broken])
    how_far = "2 of 6 answered: it hung up"
    assert f"incomplete: rag@c, {how_far}; tunewise run {run} --resume" in project.command(
        "runs", "show", run
    )
    recheck = ("recheck", run, "--out", tmp_path / "out", "--json")
    project.command(*recheck, "--arm", "rag@c", fails=f"is incomplete, {how_far}")
    result = json.loads(project.command(*recheck, "--all-arms"))
    assert "rag@c" not in {arm["arm"] for arm in result["arms"]}
    assert any(f"rag@c is not compared, as it is incomplete: {how_far}" in line for line in result["summary"])


def test_backend_of_the_plan_model_leaves_arms_of_others(project: Project) -> None:
    entry = f"openai:tern-2@{project.endpoint.url}"
    session = OpenRun.open(project.run, Opening(backend=[entry, f"lora@b={entry}"]))
    asked = {arm.arm: (model := session.backend.model_of(arm)) and model.name for arm in session.plan.arms}
    assert {arm: name for arm, name in asked.items() if name} == {
        "prompting@a": "tern-2",
        "few-shot@a": "tern-2",
        "rag@a": "tern-2",
        "lora@a": "lora@a",
        "lora@b": "tern-2",
    }
    assert _ask(project, "prompting@a", "--backend", entry)["answer"] == "I cannot say."
    assert _ask(project, "lora@b", "--backend", f"lora@b={entry}")["answer"] == "I cannot say."
    with pytest.raises(UsageProblem, match="second one for the same model"):
        OpenRun.open(project.run, Opening(model=["a=x", "a=y"])).obtain()


def test_mcp_asks_the_local_arms_of_a_run_with_an_endpoint(project: Project) -> None:
    plan = read_run_plan(project.run)
    steps = {arm.arm: arm for arm in plan.arms}
    for arm in LOCAL_ARMS:
        refuse_endpoints(plan, "", plan.with_routed([steps[arm]]))
    with pytest.raises(BadInput, match="the server sends nothing over the network"):
        refuse_endpoints(plan, "", [steps["rag@c"]])
