"""How results leave: formats, quiet, and terminals that are narrow, dumb, colourless or cannot show a character."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pexpect
import pytest

from advisor import cli, output, terminal
from rag.errors import UsageProblem

Each = Callable[..., list[Any]]
LINES = (
    "models list",
    "runs list",
    "doctor",
    "explain",
    "explain KN002",
    "history",
    "estimate --method lora",
    "plan --set must_cite=yes --set task_needs_facts=new --yes",
    "adapters list",
    "plan --help",
    "--help",
)
NARROW = 60


def test_any_terminal_will_do(tunewise_each: Each) -> None:
    """ASCII only, dumb, without colours, 60 columns: no crash, no escape, nothing but ASCII, tables within the width."""
    found = tunewise_each(*LINES, encoding="ascii", COLUMNS=str(NARROW), TERM="dumb", LANG="C")
    for line, told in zip(LINES, found, strict=True):
        assert told.code == 0, (line, told)
        assert told.out.isascii()
        assert len(told.out) > 20, line
        assert "\x1b" not in told.out + told.err
        assert "?" not in re.sub(r"[A-Za-z]\?", "", told.out), (line, "a mark has no stand-in")
        rows = [row for row in told.out.splitlines() if "  " in row.strip()]
        assert [row for row in rows if len(row) > NARROW + 6] == [], line


@pytest.mark.real
def test_progress_on_a_dumb_terminal_is_lines(root: Path, tmp_path: Path) -> None:
    """A real terminal that understands no escape gets none, and still hears what happens."""
    code = "from advisor.cli import main; main(['models', 'pull', 'all-minilm-l6-v2'])"
    env = {**os.environ, "PYTHONPATH": str(root), "TERM": "dumb", "COLUMNS": "60"}
    child = pexpect.spawn(
        sys.executable, ["-c", code], cwd=str(tmp_path), env=env, encoding="utf-8", timeout=120
    )
    said = child.read()
    child.close()
    assert child.exitstatus == 0, said
    assert "getting all-minilm-l6-v2" in said
    assert "\x1b" not in said


def test_names_that_no_encoding_can_show_do_not_crash(tunewise_each: Each) -> None:
    """A missing file with half a character in its name is an error of one line, in any encoding."""
    for given in ("ascii", "utf-8"):
        for told in tunewise_each(["run", "Übersicht–→.yaml"], ["run", "bad\udcff.yaml"], encoding=given):
            assert told.code == 3, told
            assert "next: make one with: tunewise plan" in told.err


@pytest.mark.skipif(os.name == "nt", reason="needs the locale C")
def test_names_and_texts_are_utf8_in_an_ascii_locale(root: Path, tmp_path: Path) -> None:
    """Under LC_ALL=C "für" is text and a name of a file; what is shown stays ASCII; it holds for the default mode too."""
    line = [
        sys.executable,
        "-m",
        "advisor",
        "plan",
        "--set",
        "goal=für Zoë",
        "--set",
        "must_cite=yes",
        "--yes",
    ]
    for mode in ("0", "1"):
        env = {**os.environ, "PYTHONPATH": str(root), "LC_ALL": "C", "PYTHONUTF8": mode, "NO_COLOR": "1"}
        env.pop("PYTHONIOENCODING", None)
        done = subprocess.run(
            [*line, "--record", f"Prüf{mode}.md"],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert ("fur Zoe" if mode == "0" else "für Zoë").encode() in done.stdout
        assert "für Zoë" in (tmp_path / f"Prüf{mode}.md").read_text("utf-8")


def test_utf8_that_cannot_be_had_is_asked_for_once(root: Path, tmp_path: Path) -> None:
    """An isolated Python does not hear the environment: the command runs all the same, and does not begin for ever."""
    code = f"import sys; sys.path.insert(0, {str(root)!r}); from advisor.cli import main; main()"
    env = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-I", "-X", "utf8=0", "-c", code, "--version"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout.split()[0]) == (0, "tunewise"), done.stderr


def test_json_is_exact_in_every_encoding(tunewise_each: Each) -> None:
    """What the terminal cannot show is escaped in JSON, where a stand-in would be another value."""
    prompt = "Antworte höflich – in 2 Sätzen €"
    line = ["plan", "--prompt", prompt, "--set", "must_cite=yes", "--json"]
    for given in ("ascii", "utf-8"):
        (told,) = tunewise_each(line, encoding=given)
        assert told.code == 0, told.err
        assert json.loads(told.out)["profile"]["prompt"]["value"] == prompt
        assert told.out.isascii() == (given == "ascii")


def test_every_mark_of_the_house_has_a_stand_in(root: Path) -> None:
    """What the command line prints is text of these modules: no character of theirs becomes a question mark."""
    letters: set[str] = set()
    for path in (root / "advisor").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                letters |= {letter for letter in node.value if not letter.isascii()}
    assert len(letters) > 30
    lost = {letter: unicodedata.name(letter) for letter in letters if terminal.to_ascii(letter) == "?"}
    assert set(lost) <= {"¥"}, lost
    assert terminal.to_ascii("Café – naïve ✓ 日") == "Cafe - naive + ?"


def test_a_stream_writes_what_it_can_and_stands_in_for_the_rest() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, "latin-1")
    terminal.install_stand_ins(stream)
    stream.write("é→日\udcff\n")
    stream.flush()
    assert raw.getvalue() == "é->??\n".encode("latin-1")


def test_plain_is_one_line_a_row_or_a_value() -> None:
    rows = {"schema": 1, "runs": [{"name": "a\tb", "n": 1, "of": {"x": None}}, {"name": "c\nd\\", "n": True}]}
    assert output.plain_lines(rows) == ["name\tn\tof.x", "a\\tb\t1\t", "c\\nd\\\\\ttrue\t"]
    both = {"schema": 1, "n": 0.30000000000000004, "rows": [{"a": 1}, {"a": 2}], "none": [], "word": "x"}
    assert output.plain_lines(both) == ["n\t0.30000000000000004", "rows.0.a\t1", "rows.1.a\t2", "word\tx"]
    assert output.plain_lines({"schema": 1, "runs": []}) == []


def test_formats_on_the_command_line(tunewise_each: Each) -> None:
    """The same result three ways; the option may stand anywhere, and is stronger than the environment."""
    human, last, flag, first = tunewise_each(
        "models list", "models list --format json", "models list --json", "--format=json models list"
    )
    assert json.loads(last.out) == json.loads(flag.out) == json.loads(first.out)
    plain, over, asked = tunewise_each(
        "models list", "models list --format human", "models list --json", TUNEWISE_FORMAT="plain"
    )
    assert plain.out.splitlines()[0].split("\t")[:3] == ["name", "kind", "state"]
    assert over.out == human.out
    assert json.loads(asked.out)["schema"] == 1


def test_formats_that_cannot_be_are_wrong_usage(tunewise_each: Each) -> None:
    wrong = {
        "models list --format jsn": "did you mean json?",
        "models list --format plain --json": "exclude each other",
        "serve nowhere --format json": "nothing to print as json",
        "models list --format": "--format",
    }
    for (line, said), told in zip(wrong.items(), tunewise_each(*wrong), strict=True):
        assert (told.code, told.out) == (2, ""), line
        assert said in told.err


def test_what_a_verb_makes_is_json_too(tunewise_each: Each, tmp_path: Path) -> None:
    """A copy of the example, and a model that was fetched; what is said beside it goes to stderr."""
    copied, pulled = tunewise_each("demo --copy mine --json", "models pull all-minilm-l6-v2 --json")
    assert json.loads(copied.out) == {"schema": 1, "folder": "mine"}
    assert "documents/" in copied.err
    assert (tmp_path / "mine" / "examples.jsonl").is_file()
    found = json.loads(pulled.out)
    assert (found["name"], found["kind"]) == ("all-minilm-l6-v2", "embedder")
    assert (Path(found["folder"]) / "model.safetensors").is_file()


def test_quiet_leaves_results_and_errors(tunewise_each: Each, tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text('{"question": "Is it open?"}\n', "utf-8")
    line = "plan --questions q.jsonl --set must_cite=yes --yes"
    loud, quiet, wrong = tunewise_each(line, f"--quiet {line}", "plan --set must_site=yes --quiet")
    assert "wrote plan.yaml" in loud.err
    assert (quiet.code, quiet.err) == (0, "")
    assert "confidence" in quiet.out
    assert "unknown question" in wrong.err


def test_printed_commands_can_be_pasted(tunewise_each: Each, tmp_path: Path) -> None:
    """Names with blanks stand quoted wherever a line says what to type next."""
    assert (
        output.command_line("run", Path("my plan.yaml"), "--seeds", 2)
        == "tunewise run 'my plan.yaml' --seeds 2"
    )
    (tmp_path / "q.jsonl").write_text('{"question": "Is it open?"}\n', "utf-8")
    for name in ("a run", "b run"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "events.jsonl").touch()
    lines = [
        [
            "plan",
            "--questions",
            "q.jsonl",
            "--set",
            "must_cite=yes",
            "--out",
            f"runs/{name}/plan.yaml",
            "--yes",
        ]
        for name in ("a run", "b run")
    ]
    planned, _, report, both = tunewise_each(
        *lines, ["report", "runs/a run"], ["runs", "diff", "a run", "b run"]
    )
    assert "run it with: tunewise run 'runs/a run/plan.yaml'\n" in planned.err
    assert "tunewise run 'runs/a run' --resume" in report.err
    assert "tunewise report 'runs/a run' --compare 'runs/b run'" in both.out


def test_options_of_all_verbs_move_in_front() -> None:
    assert cli.with_options_first(["ask", "run", "q", "--quiet", "--format", "json"]) == [
        "--quiet",
        "--format",
        "json",
        "ask",
        "run",
        "q",
    ]
    assert cli.with_options_first(["ask", "run", "--", "--quiet"]) == ["ask", "run", "--", "--quiet"]
    assert cli.with_options_first(["x", "--format"]) == ["x", "--format"]
    with pytest.raises(UsageProblem, match="not known"):
        output.check_format("xml")


def test_every_error_names_the_next_command(tunewise_each: Each, tmp_path: Path) -> None:
    """Where a problem names nothing to do, the command line names what tells more."""
    (tmp_path / "a.yaml").write_text("- 1\n", "utf-8")
    lines = (
        "plan --answers a.yaml",
        "run nowhere.yaml",
        "ask nowhere x",
        "report nowhere",
        "explain XX999",
        "index check nowhere",
        "whatif nowhere --set must_cite=yes",
        "train --examples nowhere --out x",
        "models pull nothing",
        "eval-advice nowhere",
        "adapters show nowhere",
        "runs show nowhere",
    )
    for line, told in zip(lines, tunewise_each(*lines), strict=True):
        assert told.code in (2, 3, 4), (line, told)
        assert "\n  next: " in told.err, (line, told.err)
        assert len(told.err.splitlines()) <= 4, told.err
    assert "next: see what it takes: tunewise plan --help" in tunewise_each(lines[0])[0].err


def test_the_handler_raises_what_is_not_about_encoding() -> None:
    with pytest.raises(UnicodeDecodeError):
        terminal._stand_in(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"))


@pytest.mark.parametrize(
    "line", ["doctor", "explain", "models list", "models list --json", "--help", "--version"]
)
def test_a_reader_that_has_read_enough_is_no_error(root: Path, tmp_path: Path, line: str) -> None:
    """As behind ``| head -0``, whether rich draws, JSON is printed, or Typer prints the help."""
    reading, writing = os.pipe()
    os.close(reading)
    told = command_line(root, tmp_path, line, writing)
    os.close(writing)
    assert (told.returncode, told.stderr) == (0, "")


@pytest.mark.parametrize("line", ["explain", "models list --json", "--help", "--version"])
def test_a_full_disk_behind_the_output_is_told_in_one_line(root: Path, tmp_path: Path, line: str) -> None:
    with Path("/dev/full").open("wb") as full:
        told = command_line(root, tmp_path, line, full.fileno())
    assert told.returncode == 4, told.stderr
    assert told.stderr.startswith("tunewise: there is no space left")
    assert len(told.stderr.splitlines()) == 2


def command_line(root: Path, folder: Path, line: str, stdout: int) -> subprocess.CompletedProcess[str]:
    """Run the command line with its output going to an open file."""
    return subprocess.run(
        [sys.executable, "-m", "advisor", *line.split()],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=stdout,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=60,
        check=False,
    )


def test_this_module_needs_nothing_heavy() -> None:
    heavy = "{'torch', 'rich', 'pydantic'} & set(sys.modules)"
    code = f"import sys; import advisor.output, advisor.terminal; print(sorted({heavy}))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
