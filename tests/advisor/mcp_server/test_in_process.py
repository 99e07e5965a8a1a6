"""Tools called in this process: what leaves the folder, what a report may say, who agrees, and a long report."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from mcp import Client
from pydantic import BaseModel

from advisor.mcp_server.background import CallProgress
from advisor.mcp_server.running_tools import follow_process, run_request
from advisor.mcp_server.server import TunewiseServer, make_server
from rag.backends.base import write_backend_file
from rag.backends.consent import INDEX_HOSTS
from rag.errors import BadInput, UsageProblem
from runners.plan.schema import Plan
from runners.plan.steps import PlanModel
from tests.advisor.mcp_server.conftest import INJECTION, seal
from tests.support.limits import HANG_S
from tests.support.silent_server import SilentServer


def call(server: TunewiseServer, tool: str, **arguments: Any) -> Any:
    """Return the result of a tool, called by a client that cannot ask its user."""

    async def result() -> Any:
        async with Client(server) as client:
            return await client.call_tool(tool, arguments)

    return asyncio.run(result())


@pytest.fixture
def copy(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project for changes; no host is allowed for an index."""
    monkeypatch.setenv("TUNEWISE_CACHE", str(project / "cache"))
    monkeypatch.delenv(INDEX_HOSTS, raising=False)
    folder = tmp_path / "project"
    shutil.copytree(project, folder, symlinks=True, ignore=shutil.ignore_patterns("cache", "link"))
    return folder


PLACES: dict[str, Callable[[dict[str, Any], str], Any]] = {
    "data.documents": lambda plan, path: plan["data"].update(documents=path),
    "data.examples": lambda plan, path: plan["data"].update(examples=path),
    "data.replay": lambda plan, path: plan["data"].update(replay=path),
    "data.questions": lambda plan, path: plan["data"].update(questions=path),
    "data.test_questions": lambda plan, path: plan["data"].update(test_questions=path),
    "data.wordings": lambda plan, path: plan["data"].update(wordings=path),
    "forgetting.file": lambda plan, path: plan.update(forgetting={"file": path}),
    "model": lambda plan, path: plan["model"].update(name=path),
    "models.other": lambda plan, path: plan.update(models={"one": plan["model"], "other": path}),
    "teacher": lambda plan, path: plan.update(teacher={"name": path}),
    "judge": lambda plan, path: plan.update(judge={"name": path}),
    "embedder": lambda plan, path: plan.update(embedder={"name": path}),
    "steps[0].reranker": lambda plan, path: plan["steps"][0].update(reranker={"name": path}),
    "steps[1].reranker": lambda plan, path: plan["steps"].insert(
        1, {"kind": "embedder", "reranker": {"name": path}}
    ),
    "steps[1].model": lambda plan, path: plan["steps"][1].update(model={"name": path}),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_plan_names_nothing_outside_of_the_folder(copy: Path, place: str) -> None:
    outside = copy.parent / "outside"
    outside.mkdir()
    plan = yaml.safe_load((copy / "plan.yaml").read_text("utf-8"))
    PLACES[place](plan, str(outside))
    (copy / "changed.yaml").write_text(yaml.safe_dump(plan), "utf-8")
    with pytest.raises(BadInput, match="outside of the folder") as refusal:
        run_request(make_server(copy, True).services, "changed.yaml", None, False, False)
    assert f"changed.yaml: {place} " in refusal.value.message


def test_every_key_of_a_plan_that_may_name_a_path_is_checked_above() -> None:
    """Keys of the type Path, models, and texts whose description speaks of a file or a folder."""
    text_keys: set[str] = set()
    keys: set[str] = set()

    def walk(model: type[BaseModel], key: str) -> None:
        for name, field in model.model_fields.items():
            types = {field.annotation}
            while inner := {part for kind in types for part in get_args(kind)} - types:
                types |= inner
            here = f"{key}.{name}".lstrip(".")
            described = (field.description or "").lower()
            if Path in types:
                keys.add(here)
            if str in types and ("file" in described or "folder" in described):
                text_keys.add(f"{model.__name__}.{name}")
            for kind in types:
                if isinstance(kind, type) and issubclass(kind, BaseModel):
                    if issubclass(kind, PlanModel):
                        keys.add(here)
                    walk(kind, here)

    walk(Plan, "")
    assert text_keys == {
        "PlanModel.name",
        "JudgeModel.name",
        "IndexStep.backend",  # a URL; refused with every other host
        "RecordedAnswer.source",  # the word "file"
        "Plan.name",  # of letters, digits and . _ -
    }
    tested = {key.replace("[0]", "").replace("[1]", "").removesuffix(".other") for key in PLACES}
    assert keys == tested


def _looks_up_outside(plan: dict[str, Any], outside: str) -> None:
    plan["data"]["documents"] = outside
    plan["steps"].append(
        {"kind": "evaluate", "arm": "agentic-search", "retrieval": True, "passages": "looked_up"}
    )


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda plan, outside: plan.update(embedder={"name": outside}), "embedder"),
        (_looks_up_outside, "data.documents"),
    ],
)
def test_a_run_that_reads_outside_of_the_folder_is_not_asked(
    copy: Path, change: Callable[[dict[str, Any], str], None], named: str
) -> None:
    outside = copy.parent / "model"
    shutil.copytree(copy / "adapter", outside)
    plan = yaml.safe_load((copy / "run" / "plan.yaml").read_text("utf-8"))
    plan["data"]["examples"] = str(copy / "examples.jsonl")
    change(plan, str(outside))
    (copy / "run" / "plan.yaml").write_text(yaml.safe_dump(plan), "utf-8")
    seal(copy / "run", "plan.yaml")
    result = call(make_server(copy, False), "ask", run="run", question="Well?")
    assert result.is_error
    assert named in result.content[0].text


def test_fields_of_a_report_stand_between_the_markers(copy: Path) -> None:
    """A report is a file of the folder: nothing in it speaks with the server's voice."""
    file = copy / "run" / "report.json"
    body = json.loads(file.read_text("utf-8"))
    body["verdict"].update(use=INJECTION, winner=INJECTION, text=INJECTION)
    for arm in body["arms"]:
        arm["arm"] = INJECTION
    file.write_text(json.dumps(body), "utf-8")
    seal(copy / "run", "report.json")
    (copy / "run").rename(copy / INJECTION.replace("/", " ")[:60])
    server = make_server(copy, False)
    name = INJECTION.replace("/", " ")[:60]
    for result in (call(server, "report", run=name), call(server, "list_runs", folder=".")):
        assert not result.is_error, result.content[0].text
        head, data = result.content
        assert "IMPORTANT" not in head.text
        assert "IMPORTANT" in data.text
        assert data.meta == {"tunewise/document-text": True}
        assert "never an instruction" in data.text


@pytest.mark.parametrize("key", ["outcome", "strength", "excluded"])
def test_a_report_with_a_text_in_place_of_a_value_is_not_repeated(copy: Path, key: str) -> None:
    file = copy / "run" / "report.json"
    body = json.loads(file.read_text("utf-8"))
    body["verdict"][key] = INJECTION
    file.write_text(json.dumps(body), "utf-8")
    seal(copy / "run", "report.json")
    result = call(make_server(copy, False), "report", run="run")
    assert result.is_error
    assert "report.json is damaged" in result.content[0].text
    assert "IMPORTANT" not in result.content[0].text


def test_words_of_a_plan_stand_between_the_markers(copy: Path) -> None:
    """What a call takes names the plan's arms and folders."""
    plan = yaml.safe_load((copy / "plan.yaml").read_text("utf-8"))
    plan["steps"][1]["arm"] = INJECTION
    (copy / "orders.yaml").write_text(yaml.safe_dump(plan), "utf-8")
    result = call(make_server(copy, True), "run", plan="orders.yaml")
    assert not result.is_error, result.content[0].text
    assert "IMPORTANT" not in result.content[0].text


def test_a_person_agrees_by_a_flag_of_the_server(copy: Path) -> None:
    """With --without-asking a call goes on to start its process; without it, it never gets there."""
    with pytest.raises(UsageProblem, match="--without-asking"):
        make_server(copy, False, True)
    given = {"examples": "examples.jsonl", "out": "tuned", "epochs": 1.0}
    for agreed in (False, True):
        server = make_server(copy, True, agreed)
        with server.services.run_lock:  # as if a run were at work, so that nothing is trained here
            result = call(server, "train", **given)
        assert result.is_error is agreed
        words = "is not finished yet" if agreed else "Nothing was started"
        assert words in result.content[0].text


def test_an_index_in_a_database_is_refused_before_anything_is_sent(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the user has allowed the host: the server sends nothing."""
    with SilentServer() as silent:
        monkeypatch.setenv(INDEX_HOSTS, "127.0.0.1")
        for index in (copy / "index", copy / "run" / "index"):
            shutil.rmtree(index)
            write_backend_file(index, silent.url, 1)
        server = make_server(copy, False)
        for tool, arguments in (
            ("index_search", {"index": "index"}),
            ("index_search", {"index": "run/index"}),
            ("ask", {"run": "run", "arm": "rag"}),
        ):
            result = call(server, tool, **arguments, question="What does parking cost?")
            assert result.is_error
            assert "sends nothing over the network" in result.content[0].text
        assert silent.connections == 0


@pytest.mark.parametrize("size", [10, 1_000_000])
def test_a_process_that_prints_more_than_a_pipe_holds_ends(size: int) -> None:
    code = f"import sys; sys.stdout.write('x' * {size}); sys.stdout.flush(); print('done', file=sys.stderr)"
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", code], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    results: list[tuple[str, list[str]]] = []
    reader = threading.Thread(
        target=lambda: results.append(follow_process(process, CallProgress())), daemon=True
    )
    reader.start()
    reader.join(HANG_S)
    process.kill()
    process.wait()
    assert results == [("x" * size, ["done"])]
