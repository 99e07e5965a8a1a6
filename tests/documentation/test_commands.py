"""Every command of README, docs and the skill runs, in the order of its page, on small data.

A page is Markdown. Its ```bash blocks run one after the other in one folder, the page's place, and must exit with 0. An
HTML comment before a block gives its options, separated by ";":

    <!-- place: desk -->        at the top: where the page's blocks run (conftest.py); without it, in an empty folder
    <!-- not run: installs -->  the block is not run, for one of the reasons in NOT_RUN
    <!-- exit: 0 or 5 -->       the expected exit codes
    <!-- then: smaller -->      after the block, the example's copy is reduced to a few rows
    <!-- file: notes.md -->     the block, of any kind, is written into this file before the next one runs
    <!-- output -->             the block's lines occur in what the last block printed; "..." is anything, numbers vary

Other blocks are text. A line that begins with "$ tunewise" is checked as an inline command is: its verb and its flags
exist.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from advisor.cli import app
from runners.plan.schema import parse_plan

ROOT = Path(__file__).resolve().parents[2]
SKILL = ROOT / "advisor" / "skills" / "tunewise" / "SKILL.md"
PAGES = [ROOT / "README.md", SKILL, *sorted((ROOT / "docs").glob("*.md"))]
TUTORIAL, AFTER = "tutorial.md", "after the tutorial"
KINDS = ("bash", "text", "yaml", "json", "csv", "markdown", "python", "toml", "{toctree}")

NOT_RUN = {
    "installs": "packages come from a registry",
    "serves": "a server runs until it is stopped: tests/runners/serving starts it and sends requests by the same clients",
    "other machine": "it copies to, or runs on, a machine that a test does not have",
}
"""Reasons for a block that does not run. Their numbers are counted below."""
NOT_RUN_COUNTS = {"installs": 7, "serves": 3, "other machine": 8}


@dataclass
class Block:
    """A fenced block of a page, with the options of the comment before it."""

    page: str
    line: int
    kind: str
    text: str
    options: dict[str, str] = field(default_factory=dict)


def blocks_of(page: Path) -> list[Block]:
    """Return a page's fenced blocks in order."""
    blocks, options, lines = [], {}, iter(enumerate(page.read_text("utf-8").splitlines(), 1))
    for number, line in lines:
        if match := re.fullmatch(r"<!--\s*(.+?)\s*-->", line.strip()):
            parts = (part.partition(":") for part in match[1].split(";"))
            options = {key.strip(): value.strip() for key, _, value in parts}
        elif match := re.fullmatch(r"```(\S*)", line):
            body = iter(lambda: next(lines)[1], "```")
            blocks.append(Block(page.name, number, match[1], "\n".join(body) + "\n", options))
            options = {}
        elif line.strip():
            options = {}
    return blocks


def place_of(page: Path) -> str:
    """Return the name of the place in which a page's blocks run."""
    match = re.search(r"<!-- place: (.+?) -->", page.read_text("utf-8"))
    return match[1] if match else "empty"


BLOCKS = {page: blocks_of(page) for page in PAGES}
RUN = [page for page in PAGES if any(b.kind == "bash" and "not run" not in b.options for b in BLOCKS[page])]


def run_page(page: Path, workspace: Any, hooks: dict[str, Callable[[Path], None]]) -> str:
    """Run a page's blocks; return what failed, with the line of the block, or "" when nothing did."""
    output = ""
    for block in BLOCKS[page]:
        if "file" in block.options:
            (workspace.folder / block.options["file"]).write_text(block.text, "utf-8")
        elif "output" in block.options:
            if missing := first_missing_line(block.text, output):
                return f"{page.name}:{block.line}: not printed: {missing}\n{output}"
        elif block.kind == "bash" and "not run" not in block.options:
            done = workspace.run(block.text)
            workspace.name_default_arms()
            output = done.stdout
            if str(done.returncode) not in block.options.get("exit", "0").split(" or "):
                return f"{page.name}:{block.line}: exit {done.returncode}\n{block.text}\n{output}"
            if "then" in block.options:
                hooks[block.options["then"]](workspace.folder / "harbor-desk")
    return ""


def first_missing_line(shown: str, output: str) -> str:
    """Return the first shown line that was not printed after the ones before it; "" when all were."""
    printed, at = " ".join(output.split()), 0
    for line in filter(None, map(str.strip, shown.splitlines())):
        parts = (
            re.sub(r"\d[\d.,]*", r"\\d[\\d.,]*", re.escape(" ".join(p.split()))) for p in line.split("...")
        )
        match = re.compile(r".*?".join(parts)).search(printed, at)
        if not match:
            return line
        at = match.end()
    return ""


@pytest.fixture(scope="session")
def after_tutorial(make_workspace: Callable[..., Any], smaller: Callable[[Path], None]) -> tuple[Path, str]:
    """The folder after all commands of the tutorial, and what failed in them."""
    workspace = make_workspace("empty")
    failure = run_page(ROOT / "docs" / TUTORIAL, workspace, {"smaller": smaller})
    return workspace.folder, failure


def page_id(page: Path) -> str:
    """Return a page's name; tests/conftest.py keeps the pages in the tutorial's folder together by their ids."""
    in_tutorial = page.name == TUTORIAL or place_of(page) == AFTER
    return f"tutorial: {page.name}" if in_tutorial else page.name


@pytest.mark.parametrize("page", RUN, ids=page_id)
def test_commands_work(
    page: Path, make_workspace: Callable[..., Any], server: Any, request: pytest.FixtureRequest
) -> None:
    """The commands of a page run one after the other, as a reader types them."""
    if page.name == TUTORIAL:
        _, failure = request.getfixturevalue("after_tutorial")
    else:
        name, folder = place_of(page), None
        if name == AFTER:
            folder, failed = request.getfixturevalue("after_tutorial")
            assert not failed, "the tutorial failed, in whose folder the commands of this page run"
        workspace = make_workspace(name, folder, {"https://api.example.com/v1": server.url})
        failure = run_page(page, workspace, {})
    assert not failure, failure


def test_blocks_that_do_not_run_are_counted() -> None:
    """All blocks of commands but the counted ones run, and all kinds of blocks are known."""
    every = [block for blocks in BLOCKS.values() for block in blocks]
    not_run = Counter(b.options["not run"] for b in every if "not run" in b.options)
    assert not_run == NOT_RUN_COUNTS
    assert set(NOT_RUN_COUNTS) == set(NOT_RUN)
    assert {b.kind for b in every} <= set(KINDS), [(b.page, b.line) for b in every if b.kind not in KINDS]
    assert sum(b.kind == "bash" for b in every) - not_run.total() >= 30


def test_failing_command_or_missing_output_is_reported(
    make_workspace: Callable[..., Any], tmp_path: Path
) -> None:
    """A failing command, an unexpected exit code and a line that was not printed are all reported."""
    for number, (text, expected) in enumerate(
        {
            "```bash\ntunewise explain KN002\n```\n<!-- output -->\n```text\nKN002 a rule\n...weight of 7\n```": "",
            "```bash\ntunewise explain KN02\n```": "exit 3",
            "<!-- exit: 0 -->\n```bash\ntunewise nonsense\n```": "exit 2",
            "<!-- exit: 2 -->\n```bash\ntunewise nonsense | cat\n```": "",
            "```bash\necho 7 hits\n```\n<!-- output -->\n```text\n8 misses\n```": "not printed: 8 misses",
        }.items()
    ):
        page = tmp_path / f"{number}.md"
        page.write_text(text + "\n", "utf-8")
        BLOCKS[page] = blocks_of(page)
        failure = run_page(page, make_workspace("empty"), {})
        del BLOCKS[page]
        assert (expected in failure) if expected else not failure, failure


def test_yaml_steps_are_valid_in_a_plan() -> None:
    """A page's YAML blocks of steps validate in a plan, together; one that begins with an index step is its own plan."""
    data = {"documents": "d", "examples": "e", "questions": "q"}
    plan = {"name": "p", "choice": "rag", "model": {"name": "m"}, "data": data, "weights": {"token_f1": 1}}
    plans: list[list[dict[str, Any]]] = []
    for blocks in BLOCKS.values():
        of_page: list[list[dict[str, Any]]] = [[{"kind": "index"}]]
        for block in blocks:
            if block.kind == "yaml" and re.search("^- *{?kind:", block.text, re.MULTILINE):
                steps = yaml.safe_load(block.text)
                if steps[0]["kind"] == "index":
                    of_page.append(steps)
                else:
                    of_page[0] += steps
        plans += [steps for steps in of_page if len(steps) > 1]
    assert plans
    for steps in plans:
        parse_plan({**plan, "steps": steps})


def commands_in_text(text: str) -> list[str]:
    """Return the `tunewise` commands in a page's text and in the transcripts of its blocks."""
    inline = re.findall(r"`(tunewise [^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return inline + re.findall(r"^\$ (tunewise .+)$", text, re.MULTILINE)


def test_commands_in_text_exist() -> None:
    """The verbs and flags of a command in a sentence exist."""
    tree = typer.main.get_command(app)
    unknown, count = [], 0
    for page in (*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "AGENTS.md"):
        text = page.read_text("utf-8")
        # The skill's commands that do not run here stand in blocks without a prompt, as an agent types them.
        shown = re.findall(r"^(tunewise [^#\n]+)", text, re.MULTILINE) if page == SKILL else []
        for command in (*commands_in_text(text), *shown):
            count += 1
            unknown += [] if exists(tree, command) else [f"{page.name}: {command}"]
    assert count >= 40
    assert not unknown


def exists(tree: Any, command: str) -> bool:
    """Return whether a command's verbs and flags exist; `a|b` names several verbs."""
    words = command.replace("\\", "").split()[1:]
    commands = [tree]
    while (
        words and all(hasattr(each, "commands") for each in commands) and re.fullmatch(r"[a-z|-]+", words[0])
    ):
        if words[0].startswith("-"):
            break
        names = words.pop(0).split("|")
        if any(name not in each.commands for each in commands for name in names):
            return False
        commands = [each.commands[name] for each in commands for name in names]
    subcommands = [sub for each in commands for sub in getattr(each, "commands", {}).values()]
    known = {"--help", "--debug"}
    for each in (*commands, *subcommands):
        known.update(option for p in each.params for option in (*p.opts, *p.secondary_opts))
    return set(re.findall(r"(?<!\S)--[a-z][a-z-]*", " ".join(words))) <= known
