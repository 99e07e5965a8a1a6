"""No verb and no tool connects to a server because a folder or a plan names it; every verb of the table is covered."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from mcp import Client

from advisor.cli import GROUPS, VERBS, main
from advisor.mcp_server.server import READING_TOOLS, RUNNING_TOOLS, make_server
from rag.backends.base import write_backend_file
from rag.backends.consent import INDEX_HOSTS
from rag.files import MANIFEST, sha256_file
from tests.support.silent_server import SilentServer

FIXTURES = Path(__file__).parents[2] / "versions" / "0.2.0"
ORIGINAL_FOLDER = "/tmp/tunewise-0.2.0"

OPENING: dict[str, list[list[str]]] = {
    "run": [["plan.yaml", "--out", "new"], ["plan.yaml", "--out", "run", "--resume"]],
    "eval": [["run", "--questions", "questions.jsonl"]],
    "recheck": [["run"]],
    "curve": [["run", "--arm", "hybrid", "--sizes", "8,12"]],
    "why": [["run", "--arm", "rag"]],
    "ask": [["run", "What does parking cost?", "--arm", "rag"]],
    "chat": [["run", "--arm", "rag"]],
    "serve": [["run", "--arm", "rag", "--port", "0"]],
    "export": [["run", "--to", "index", "--out", "exported"]],
    "index build": [["index", "--documents", "documents"]],
    "index update": [["index", "--documents", "documents"], ["run", "--documents", "documents"]],
    "index search": [["index", "parking"], ["run", "parking"]],
    "index check": [["index"], ["run"]],
    "index copy": [["index", "--to", "lancedb:///tmp/never"]],
    "index watch": [["index", "--documents", "documents"]],
    "index tune": [["index", "--documents", "documents"]],
    "examples make": [["--documents", "documents", "--out", "made.jsonl", "--index", "index"]],
}
"""Verbs that read or write an index, with arguments for which they open a folder that stands for a URL."""
WITHOUT_OPENING: dict[str, list[str]] = {
    "plan": ["--documents", "documents", "--answers", "run", "--out", "planned.yaml", "--yes"],
    "report": ["run"],
    "label": ["questions.jsonl", "--run", "run", "--terminal"],
    "explain": ["run"],
    "whatif": ["run", "--set", "must_cite=no"],
    "adapters list": ["run"],
    "adapters show": ["run/adapters/lora-s0"],
    "runs list": ["."],
    "runs show": ["run"],
    "runs diff": ["run", "run"],
    "runs rm": ["run"],
    "runs undo": ["."],
    "runs allow": ["run"],
    "doctor": ["--run", "run", "--bundle", "bug.zip"],
    "history": [],
    "models list": [],
}
"""Verbs that look at a run or at nothing: they are called too, and must not connect, whatever their exit code."""
NO_FOLDER = {
    "demo": "makes its own files",
    "eval-advice": "reads a file of cases",
    "estimate": "reads a model's configuration",
    "probe": "makes an index of its own from documents",
    "train": "reads examples and a model",
    "mcp": "its tools are called below",
    "models pull": "fetches what is named on the command line",
    "models verify": "reads the cache",
    "questions import": "reads a log",
    "questions forget": "rewrites a log",
}


@dataclass(frozen=True)
class Hostile:
    """A folder whose indexes stand for a URL, and the server that the URL names."""

    folder: Path
    server: SilentServer


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hostile]:
    """Files, a finished run and models of tests/versions; both indexes, and the plans, name the server."""
    folder = tmp_path / "copy"
    shutil.copytree(FIXTURES, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TUNEWISE_CACHE", str(folder / "cache"))
    monkeypatch.setenv("PGPASSWORD", "hunter2")
    monkeypatch.delenv(INDEX_HOSTS, raising=False)
    monkeypatch.setattr(sys, "stdin", io.StringIO("What does parking cost?\n"))
    with SilentServer() as server:
        for index in (folder / "index", folder / "run" / "index"):
            shutil.rmtree(index)
            write_backend_file(index, server.url, 1)
        for plan in (folder / "plan.yaml", folder / "run" / "plan.yaml"):
            body = yaml.safe_load(plan.read_text("utf-8").replace(ORIGINAL_FOLDER, str(folder)))
            next(step for step in body["steps"] if step["kind"] == "index")["backend"] = server.url
            plan.write_text(yaml.safe_dump(body, sort_keys=False), "utf-8")
        manifest = json.loads((folder / "run" / MANIFEST).read_text("utf-8"))
        changed = folder / "run" / "plan.yaml"
        manifest["files"]["plan.yaml"] = {"bytes": changed.stat().st_size, "sha256": sha256_file(changed)}
        (folder / "run" / MANIFEST).write_text(json.dumps(manifest), "utf-8")
        yield Hostile(folder, server)


def every_verb() -> set[str]:
    """Return the verbs of the table, those of a noun with its name before them."""
    nouns = {
        f"{noun} {info.name}"
        for noun in GROUPS
        for info in import_module(f"advisor.commands.{noun}").group.registered_commands
    }
    return {*VERBS, *nouns}


def test_every_verb_is_covered() -> None:
    """A new verb is entered above: with arguments that open a folder, or with the reason why it opens none."""
    listed = [*OPENING, *WITHOUT_OPENING, *NO_FOLDER]
    assert len(listed) == len(set(listed))
    assert set(listed) == every_verb()


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [pytest.param(verb, line, id=f"{verb} {line[0]}") for verb, lines in OPENING.items() for line in lines],
)
def test_no_verb_connects_where_only_a_folder_or_a_plan_says_so(
    hostile: Hostile, verb: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*verb.split(), *arguments])
    errors = capsys.readouterr().err
    assert hostile.server.connections == 0
    assert stopped.value.code == 3, errors
    assert INDEX_HOSTS in errors


@pytest.mark.parametrize("verb", WITHOUT_OPENING)
def test_no_other_verb_connects(hostile: Hostile, verb: str) -> None:
    with suppress(SystemExit):
        main([*verb.split(), *WITHOUT_OPENING[verb]])
    assert hostile.server.connections == 0


def test_no_tool_connects(hostile: Hostile) -> None:
    """Every tool of the server, with the folders; those that would open an index are refused."""
    calls: dict[str, dict[str, object]] = {
        "recommend": {"file": "run"},
        "whatif": {"file": "run", "changes": {"must_cite": False}},
        "estimate": {"method": "lora"},
        "explain": {"topic": "run"},
        "index_search": {"index": "index", "question": "parking"},
        "ask": {"run": "run", "question": "What does parking cost?"},
        "list_runs": {"folder": "."},
        "report": {"run": "run"},
        "run": {"plan": "plan.yaml", "out": "new"},
        "train": {"examples": "examples.jsonl", "out": "tuned"},
    }
    tools = {tool.__name__.removesuffix("_tool") for tool in (*READING_TOOLS, *RUNNING_TOOLS)}
    assert set(calls) == tools

    async def results() -> dict[str, bool]:
        async with Client(make_server(hostile.folder, True)) as client:
            answers = {name: await client.call_tool(name, given) for name, given in calls.items()}
        return {name: bool(answer.is_error) for name, answer in answers.items()}

    refused = {name for name, is_error in asyncio.run(results()).items() if is_error}
    assert hostile.server.connections == 0
    assert {"index_search", "ask", "run"} <= refused


def test_the_setting_and_the_command_line_are_consent(
    hostile: Hostile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: with the host allowed, or the URL typed, the same verb connects."""
    for hosts, index in ((f"127.0.0.1:{hostile.server.port}", "index"), ("", hostile.server.url)):
        before = hostile.server.connections
        monkeypatch.setenv(INDEX_HOSTS, hosts)
        with pytest.raises(SystemExit) as stopped:
            main(["index", "check", index])
        assert stopped.value.code == 4
        assert hostile.server.connections > before
