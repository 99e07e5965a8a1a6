"""Output of results: formats, --quiet, and terminals that are narrow, dumb, colourless or lack characters."""

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
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from advisor import cli, output, terminal
from advisor.display import console
from rag.errors import UsageProblem
from tests.support.limits import HANG_S

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


def test_output_on_narrow_dumb_ascii_terminal(tunewise_each: Each) -> None:
    """ASCII only, dumb, without colours, 60 columns: no crash, no escape sequence, tables within the width."""
    results = tunewise_each(*LINES, encoding="ascii", COLUMNS=str(NARROW), TERM="dumb", LANG="C")
    for line, result in zip(LINES, results, strict=True):
        assert result.code == 0, (line, result)
        assert result.out.isascii()
        assert len(result.out) > 20, line
        assert "\x1b" not in result.out + result.err
        assert "?" not in re.sub(r"[A-Za-z]\?", "", result.out), (line, "a mark has no stand-in")
        rows = [row for row in result.out.splitlines() if "  " in row.strip()]
        assert [row for row in rows if len(row) > NARROW + 6] == [], line


@pytest.mark.real
def test_progress_on_dumb_terminal_is_plain_lines(root: Path, tmp_path: Path) -> None:
    """A real terminal that understands no escape sequences gets none, but the progress lines."""
    code = "from advisor.cli import main; main(['models', 'pull', 'all-minilm-l6-v2'])"
    env = {**os.environ, "PYTHONPATH": str(root), "TERM": "dumb", "COLUMNS": "60"}
    child = pexpect.spawn(
        sys.executable, ["-c", code], cwd=str(tmp_path), env=env, encoding="utf-8", timeout=HANG_S
    )
    output = child.read()
    child.close()
    assert child.exitstatus == 0, output
    assert "getting all-minilm-l6-v2" in output
    assert "\x1b" not in output


def test_undecodable_file_names_do_not_crash(tunewise_each: Each) -> None:
    """A missing file with half a character in its name is an error of one line, in any encoding."""
    for encoding in ("ascii", "utf-8"):
        for result in tunewise_each(
            ["run", "Übersicht–→.yaml"], ["run", "bad\udcff.yaml"], encoding=encoding
        ):
            assert result.code == 3, result
            assert "next: make one with: tunewise plan" in result.err


@pytest.mark.skipif(os.name == "nt", reason="needs the locale C")
def test_arguments_are_utf8_in_ascii_locale(root: Path, tmp_path: Path) -> None:
    """Under LC_ALL=C "für" is valid in texts and file names; the output stays ASCII; also in the default mode."""
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
            timeout=HANG_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert ("fur Zoe" if mode == "0" else "für Zoë").encode() in done.stdout
        assert "für Zoë" in (tmp_path / f"Prüf{mode}.md").read_text("utf-8")


def test_isolated_python_restarts_only_once(root: Path, tmp_path: Path) -> None:
    """An isolated Python ignores the environment: the command still runs, and does not restart forever."""
    code = f"import sys; sys.path.insert(0, {str(root)!r}); from advisor.cli import main; main()"
    env = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-I", "-X", "utf8=0", "-c", code, "--version"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    assert (done.returncode, done.stdout.split()[0]) == (0, "tunewise"), done.stderr


def test_json_is_exact_in_every_encoding(tunewise_each: Each) -> None:
    """Characters that the terminal lacks are escaped in JSON, as a replacement would be another value."""
    prompt = "Antworte höflich – in 2 Sätzen €"
    line = ["plan", "--prompt", prompt, "--set", "must_cite=yes", "--json"]
    for encoding in ("ascii", "utf-8"):
        (result,) = tunewise_each(line, encoding=encoding)
        assert result.code == 0, result.err
        assert json.loads(result.out)["profile"]["prompt"]["value"] == prompt
        assert result.out.isascii() == (encoding == "ascii")


def test_every_printed_character_has_an_ascii_replacement(root: Path) -> None:
    """The command line prints text of these modules: no character of theirs becomes a question mark."""
    letters: set[str] = set()
    for path in (root / "advisor").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                letters |= {letter for letter in node.value if not letter.isascii()}
    assert len(letters) > 30
    lost = {letter: unicodedata.name(letter) for letter in letters if terminal.to_ascii(letter) == "?"}
    # the other two are only matched in texts, never printed
    assert set(lost) <= {"¥", "Þ", "。"}, lost
    assert terminal.to_ascii("Café – naïve ✓ 日") == "Cafe - naive + ?"


def test_stream_replaces_characters_it_lacks() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, "latin-1")
    terminal.install_stand_ins(stream)
    stream.write("é→日\udcff\n")
    stream.flush()
    assert raw.getvalue() == "é->??\n".encode("latin-1")


def test_format_option_anywhere_on_the_line(tunewise_each: Each) -> None:
    """The same result both ways; the option wins over the environment."""
    human, last, flag, first = tunewise_each(
        "models list", "models list --format json", "models list --json", "--format=json models list"
    )
    assert json.loads(last.out) == json.loads(flag.out) == json.loads(first.out)
    from_environment, over, asked = tunewise_each(
        "models list", "models list --format human", "models list --json", TUNEWISE_FORMAT="json"
    )
    assert from_environment.out == last.out
    assert over.out == human.out
    assert json.loads(asked.out)["schema"] == 1


def test_invalid_formats_exit_2(tunewise_each: Each) -> None:
    wrong = {
        "models list --format jsn": "did you mean json?",
        "models list --format human --json": "exclude each other",
        "serve nowhere --format json": "nothing to print as json",
        "models list --format": "--format",
    }
    for (line, message), result in zip(wrong.items(), tunewise_each(*wrong), strict=True):
        assert (result.code, result.out) == (2, ""), line
        assert message in result.err


def test_demo_copy_and_models_pull_print_json(tunewise_each: Each, tmp_path: Path) -> None:
    """A copy of the example, and a downloaded model; everything else goes to stderr."""
    copied, pulled = tunewise_each("demo --copy mine --json", "models pull all-minilm-l6-v2 --json")
    assert json.loads(copied.out) == {"schema": 1, "folder": "mine"}
    assert "documents/" in copied.err
    assert (tmp_path / "mine" / "examples.jsonl").is_file()
    model = json.loads(pulled.out)
    assert (model["name"], model["kind"]) == ("all-minilm-l6-v2", "embedder")
    assert (Path(model["folder"]) / "model.safetensors").is_file()


def test_quiet_prints_only_results_and_errors(tunewise_each: Each, tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text('{"question": "Is it open?"}\n', "utf-8")
    line = "plan --questions q.jsonl --set must_cite=yes --yes"
    loud, quiet, wrong = tunewise_each(line, f"--quiet {line}", "plan --set must_site=yes --quiet")
    assert "wrote plan.yaml" in loud.err
    assert (quiet.code, quiet.err) == (0, "")
    assert "How sure" in quiet.out
    assert "unknown question" in wrong.err


def test_printed_commands_are_quoted(tunewise_each: Each, tmp_path: Path) -> None:
    """Names with blanks are quoted wherever a line shows the next command."""
    assert (
        output.command_line("run", Path("my plan.yaml"), "--seeds", 2)
        == "tunewise run 'my plan.yaml' --seeds 2"
    )
    asked = "".join(f'{{"question": "Is pier {n} open?", "answers": ["{n}"]}}\n' for n in range(6))
    (tmp_path / "q.jsonl").write_text(asked, "utf-8")
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


def test_options_of_all_verbs_move_to_the_front() -> None:
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
    """Where a problem has no hint, the command line names a command that shows more."""
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
    for line, result in zip(lines, tunewise_each(*lines), strict=True):
        assert result.code in (2, 3, 4), (line, result)
        assert "\n  next: " in result.err, (line, result.err)
        assert len(result.err.splitlines()) <= 4, result.err
    assert "next: see what it takes: tunewise plan --help" in tunewise_each(lines[0])[0].err


def test_encoding_handler_raises_other_errors() -> None:
    with pytest.raises(UnicodeDecodeError):
        terminal._stand_in(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"))


@pytest.mark.parametrize(
    "line", ["doctor", "explain", "models list", "models list --json", "--help", "--version"]
)
def test_closed_pipe_exits_0(root: Path, tmp_path: Path, line: str) -> None:
    """As behind ``| head -0``, whether rich draws, JSON is printed, or Typer prints the help."""
    reading, writing = os.pipe()
    os.close(reading)
    result = command_line(root, tmp_path, line, writing)
    os.close(writing)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("line", ["explain", "models list --json", "--help", "--version"])
def test_full_disk_behind_output_exits_4(root: Path, tmp_path: Path, line: str) -> None:
    with Path("/dev/full").open("wb") as full:
        result = command_line(root, tmp_path, line, full.fileno())
    assert result.returncode == 4, result.stderr
    assert result.stderr.startswith("tunewise: there is no space left")
    assert len(result.stderr.splitlines()) == 2


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
        timeout=HANG_S,
        check=False,
    )


def test_output_and_terminal_import_nothing_heavy() -> None:
    heavy = "{'torch', 'rich', 'pydantic'} & set(sys.modules)"
    code = f"import sys; import advisor.output, advisor.terminal; print(sorted({heavy}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


WRAPPED = "  UNDECIDED (leaning)  lora +0.03 [-0.12, +0.19] against rag; "
WRAPPED += "日本語の文 und Straßenbahnhaltestelle/a/long/path.md, hybrid"


@pytest.mark.parametrize("width", [1, 20, 38, 60, 80, 200])
def test_lines_break_between_words_on_terminal(width: int) -> None:
    screen = io.StringIO()
    console = Console(file=screen, width=width, force_terminal=True, color_system=None)
    output.print_plain(console, WRAPPED)
    lines = screen.getvalue().splitlines()
    assert " ".join(screen.getvalue().split()) == " ".join(WRAPPED.split())  # no word is broken, none is lost
    assert all(line.startswith("  ") for line in lines), "continued lines are indented as the first"
    longest = "[-0.12, +0.19]"
    assert all(cell_len(line) <= width or len(line.replace(longest, "-").split()) == 1 for line in lines)
    assert longest in screen.getvalue(), "an interval stays on one line"


def test_line_stays_whole_where_output_is_piped() -> None:
    piped = io.StringIO()
    output.print_plain(Console(file=piped, width=20), WRAPPED)
    assert piped.getvalue() == WRAPPED + "\n"


def test_wrapped_text_keeps_its_styles_and_line_ends() -> None:
    text = Text.assemble(("CONFIRMED", "bold green"), " rag scored more\n\nthan prompting")
    lines = output.wrapped_lines(text, 12)
    assert [line.plain for line in lines] == ["CONFIRMED", "rag scored", "more", "", "than", "prompting"]
    assert [str(span.style) for span in lines[0].spans] == ["bold green"]


def test_redirected_output_is_not_cut(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table of 200 columns is printed whole into a pipe or a file; COLUMNS narrows it all the same."""
    cell = "a long cell " * 20
    monkeypatch.delenv("COLUMNS", raising=False)
    output.open_console().print(console.table(("name", "text"), [("x", cell)]))
    assert cell.strip() in capsys.readouterr().out
    monkeypatch.setenv("COLUMNS", "60")
    assert output.open_console().width == 60
