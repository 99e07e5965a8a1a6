"""Every command of README and docs is carried out, in the order of its page, on tiny data.

A page is Markdown. Its ```bash blocks run one after the other in one folder, the page's place, and must end with 0. An
HTML comment before a block says what is special about it, in parts divided by ";":

    <!-- place: desk -->        at the top: where the page's blocks run (conftest.py); without it, in an empty folder
    <!-- not run: installs -->  the block is not run, for one of the reasons in NOT_RUN
    <!-- exit: 0 or 5 -->       the exit codes that are right
    <!-- then: smaller -->      after the block, the example's copy is cut down to a few rows
    <!-- file: notes.md -->     the block, of any kind, is written into this file before the next one runs
    <!-- output -->             the block's lines stand in what the last block printed; "..." is anything, numbers vary

Other blocks are text. A line of theirs that begins with "$ tunewise" is checked as an inline command is: its verb and its
flags exist.
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
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TUTORIAL, AFTER = "tutorial.md", "after the tutorial"
KINDS = ("bash", "text", "yaml", "json", "csv", "markdown", "python", "toml", "{toctree}")

NOT_RUN = {
    "installs": "packages come from a registry",
    "serves": "a server runs until it is stopped: tests/runners/served starts it and asks it by the same clients",
    "other machine": "it copies to, or runs on, a machine that a test does not have",
}
"""Why a block may stay unexecuted. How many there are of each is counted below."""
COUNTED = {"installs": 4, "serves": 2, "other machine": 1}


@dataclass
class Block:
    """A fenced block of a page, with what the comment before it says."""

    page: str
    line: int
    kind: str
    text: str
    said: dict[str, str] = field(default_factory=dict)


def blocks_of(page: Path) -> list[Block]:
    """Return a page's fenced blocks in order."""
    found, said, lines = [], {}, iter(enumerate(page.read_text("utf-8").splitlines(), 1))
    for number, line in lines:
        if match := re.fullmatch(r"<!--\s*(.+?)\s*-->", line.strip()):
            parts = (part.partition(":") for part in match[1].split(";"))
            said = {key.strip(): value.strip() for key, _, value in parts}
        elif match := re.fullmatch(r"```(\S*)", line):
            body = iter(lambda: next(lines)[1], "```")
            found.append(Block(page.name, number, match[1], "\n".join(body) + "\n", said))
            said = {}
        elif line.strip():
            said = {}
    return found


def place_of(page: Path) -> str:
    """Return the name of the place in which a page's blocks run."""
    found = re.search(r"<!-- place: (.+?) -->", page.read_text("utf-8"))
    return found[1] if found else "empty"


BLOCKS = {page: blocks_of(page) for page in PAGES}
RUN = [page for page in PAGES if any(b.kind == "bash" and "not run" not in b.said for b in BLOCKS[page])]


def carry_out(page: Path, place: Any, hooks: dict[str, Callable[[Path], None]]) -> str:
    """Run a page's blocks in a place; return what is wrong, with the line of the block, "" when all is well."""
    output = ""
    for block in BLOCKS[page]:
        if "file" in block.said:
            (place.folder / block.said["file"]).write_text(block.text, "utf-8")
        elif "output" in block.said:
            if missing := absent(block.text, output):
                return f"{page.name}:{block.line}: not printed: {missing}\n{output}"
        elif block.kind == "bash" and "not run" not in block.said:
            done = place.run(block.text)
            output = done.stdout
            if str(done.returncode) not in block.said.get("exit", "0").split(" or "):
                return f"{page.name}:{block.line}: exit {done.returncode}\n{block.text}\n{output}"
            if "then" in block.said:
                hooks[block.said["then"]](place.folder / "harbor-desk")
    return ""


def absent(shown: str, output: str) -> str:
    """Return the first shown line that was not printed after the ones before it, "" when all were."""
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


@pytest.fixture(scope="module")
def after_tutorial(places: Callable[..., Any], smaller: Callable[[Path], None]) -> tuple[Path, str]:
    """The tutorial's folder when its reader is through, and what went wrong on the way."""
    place = places("empty")
    wrong = carry_out(ROOT / "docs" / TUTORIAL, place, {"smaller": smaller})
    return place.folder, wrong


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_commands_work(
    page: Path, places: Callable[..., Any], server: Any, request: pytest.FixtureRequest
) -> None:
    """The page's commands, one after the other, as its reader types them."""
    if page.name == TUTORIAL:
        _, wrong = request.getfixturevalue("after_tutorial")
    else:
        name, folder = place_of(page), None
        if name == AFTER:
            folder, failed = request.getfixturevalue("after_tutorial")
            assert not failed, "the tutorial, in whose folder this page goes on, fails itself"
        place = places(name, folder, {"https://api.example.com/v1": server.url})
        wrong = carry_out(page, place, {})
    assert not wrong, wrong


def test_exceptions_are_few_and_counted() -> None:
    """Every block of commands runs, but for the counted ones; and blocks are of kinds that this test knows."""
    every = [block for blocks in BLOCKS.values() for block in blocks]
    left = Counter(b.said["not run"] for b in every if "not run" in b.said)
    assert left == COUNTED
    assert set(COUNTED) == set(NOT_RUN)
    assert {b.kind for b in every} <= set(KINDS), [(b.page, b.line) for b in every if b.kind not in KINDS]
    assert sum(b.kind == "bash" for b in every) - left.total() >= 30


def test_a_wrong_command_or_output_is_seen(places: Callable[..., Any], tmp_path: Path) -> None:
    """What this file promises is held: a failing command, another exit code, a line that was not printed."""
    for number, (text, wrong) in enumerate(
        {
            "```bash\ntunewise explain KN002\n```\n<!-- output -->\n```text\nKN002 knowledge\n...weight 7 for rag\n```": "",
            "```bash\ntunewise explain KN02\n```": "exit 3",
            "<!-- exit: 0 -->\n```bash\ntunewise nonsense\n```": "exit 2",
            "<!-- exit: 2 -->\n```bash\ntunewise nonsense | cat\n```": "",
            "```bash\necho 7 hits\n```\n<!-- output -->\n```text\n8 misses\n```": "not printed: 8 misses",
        }.items()
    ):
        page = tmp_path / f"{number}.md"
        page.write_text(text + "\n", "utf-8")
        BLOCKS[page] = blocks_of(page)
        found = carry_out(page, places("empty"), {})
        del BLOCKS[page]
        assert (wrong in found) if wrong else not found, found


def test_steps_of_a_plan_are_such() -> None:
    """A YAML block of steps validates in a plan."""
    steps = [
        step
        for blocks in BLOCKS.values()
        for block in blocks
        if block.kind == "yaml" and "kind:" in block.text
        for step in yaml.safe_load(block.text)
    ]
    assert steps
    data = {"documents": "d", "examples": "e", "questions": "q"}
    plan = {"name": "p", "choice": "rag", "model": {"name": "m"}, "data": data, "weights": {"token_f1": 1}}
    parse_plan({**plan, "steps": [{"kind": "index"}, *steps]})


def named(text: str) -> list[str]:
    """Return the `tunewise` commands that a page names in its text, and in the transcripts of its blocks."""
    inline = re.findall(r"`(tunewise [^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return inline + re.findall(r"^\$ (tunewise .+)$", text, re.MULTILINE)


def test_named_commands_exist() -> None:
    """The verb, the verb under it and every flag of a command that stands in a sentence are the command line's."""
    tree = typer.main.get_command(app)
    wrong, count = [], 0
    for page in (*PAGES, ROOT / "CONTRIBUTING.md"):
        for command in named(page.read_text("utf-8")):
            count += 1
            wrong += [f"{page.name}: {command}" for known in [exists(tree, command)] if not known]
    assert count >= 40
    assert not wrong


def exists(tree: Any, command: str) -> bool:
    """Whether a command's verbs and flags are there; `a|b` names several verbs."""
    words = command.replace("\\", "").split()[1:]
    at = [tree]
    while words and all(hasattr(each, "commands") for each in at) and re.fullmatch(r"[a-z|-]+", words[0]):
        if words[0].startswith("-"):
            break
        names = words.pop(0).split("|")
        if any(name not in each.commands for each in at for name in names):
            return False
        at = [each.commands[name] for each in at for name in names]
    below = [sub for each in at for sub in getattr(each, "commands", {}).values()]
    taken = {"--help", "--debug"}
    for each in (*at, *below):
        taken.update(option for p in each.params for option in (*p.opts, *p.secondary_opts))
    return set(re.findall(r"(?<!\S)--[a-z][a-z-]*", " ".join(words))) <= taken
