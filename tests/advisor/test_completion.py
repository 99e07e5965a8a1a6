"""Shell completion: verbs, runs, plans, models, rules, answers and arms, without importing anything heavy."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pexpect
import pytest

from advisor import completion
from tests.support.limits import HANG_S

ASK = """
import io, json, os, sys
from contextlib import redirect_stdout
from advisor.cli import main

suggestions = {}
for words in json.loads(sys.argv[1]):
    out = io.StringIO()
    os.environ.update(_TUNEWISE_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(words.count(" ")))
    with redirect_stdout(out):
        try:
            main([])
        except SystemExit:
            pass
    suggestions[words] = out.getvalue().split()
heavy = {"torch", "transformers", "faiss", "peft", "scipy", "numpy", "questionary"} & set(sys.modules)
print(json.dumps([suggestions, sorted(heavy)]))
"""
PLAN = (
    "name: desk\nsteps:\n- {kind: index}\n- {kind: evaluate, arm: rag}\n- {kind: evaluate, arm: prompting}\n"
)


def completions(folder: Path, root: Path, *words: str, **environ: str) -> dict[str, list[str]]:
    """Return the completions of each line, whose last word is being typed; nothing heavy may be imported."""
    env = {**os.environ, "PYTHONPATH": str(root), **environ}
    done = subprocess.run(
        [sys.executable, "-c", ASK, json.dumps(words)],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    suggestions, heavy = json.loads(done.stdout)
    assert heavy == []
    return suggestions


@pytest.fixture
def work_folder(tmp_path: Path) -> Path:
    """A folder with two runs, a plan, a broken run and a profile."""
    for name in ("runs/desk", "runs/other", "old/desk"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "plan.yaml").write_text(PLAN, "utf-8")
    (tmp_path / "runs/other/plan.yaml").write_text("{", "utf-8")
    (tmp_path / "runs/.trash").mkdir()
    (tmp_path / "plan.yaml").write_text(PLAN, "utf-8")
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles/harbor.yaml").write_text("must_cite: true\n", "utf-8")
    return tmp_path


def test_completions_of_every_kind(work_folder: Path, root: Path) -> None:
    expected = {
        "tunewise mod": ["models"],
        "tunewise runs ": ["list", "show", "diff", "rm", "undo", "allow"],
        "tunewise ask ": ["runs/desk", "runs/other", "old/", "profiles/", "runs/"],
        "tunewise report old/": ["old/desk"],
        "tunewise runs rm runs/d": ["runs/desk"],
        "tunewise run pl": ["plan.yaml"],
        "tunewise ask runs/desk q --arm ": ["rag", "prompting"],
        "tunewise ask runs/other q --arm ": [],
        "tunewise models pull s": [
            "smollm2-135m-instruct",
            "smollm2-360m-instruct",
            "smollm2-1.7b-instruct",
            "smollm3-3b",
        ],
        "tunewise explain KN002": ["KN002"],
        "tunewise explain hy": ["hybrid"],
        "tunewise plan --set facts_ch": ["facts_change="],
        "tunewise plan --set facts_change=s": ["facts_change=static", "facts_change=slow"],
        "tunewise plan --set must_cite=": ["must_cite=yes", "must_cite=no"],
        "tunewise plan --set nothing=": [],
        "tunewise plan --profile h": ["harbor"],
        "tunewise --format ": ["human", "json", "plain"],
        "tunewise export runs/desk --to p": ["peft", "provider-jsonl"],
        "tunewise train --method ": ["lora", "qlora", "full"],
        "tunewise estimate --method few": ["few-shot"],
    }
    suggestions = completions(work_folder, root, *expected, TUNEWISE_PROFILES=str(work_folder / "profiles"))
    assert suggestions == expected


TAB = """
PS1= PS2=
bind 'set bell-style none'
bind -x '"\\C-g": printf "LINE<%s>\\n" "$READLINE_LINE"'
eval "$(tunewise --show-completion bash)"
echo READY
"""


@pytest.fixture
def press_tab(work_folder: Path, root: Path, tmp_path: Path) -> Callable[[str], str]:
    """Return a function that types a line into a real bash, presses Tab, and returns the completed line."""
    (tmp_path / "bin").mkdir()
    shim = tmp_path / "bin" / "tunewise"
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m advisor "$@"\n', "utf-8")
    shim.chmod(0o755)
    (tmp_path / "tab.sh").write_text(TAB, "utf-8")
    env = {
        **os.environ,
        "PYTHONPATH": str(root),
        "PATH": f"{shim.parent}:{os.environ['PATH']}",
        "TERM": "dumb",
        "HISTFILE": "/dev/null",
    }
    shell = pexpect.spawn(
        "bash", ["--norc", "--noprofile"], cwd=str(work_folder), env=env, encoding="utf-8", timeout=HANG_S
    )
    shell.setwinsize(50, 400)
    shell.sendline(". ./tab.sh")
    shell.expect("READY\r\n")

    def press(line: str) -> str:
        shell.send(f"{line}\t\x07")
        shell.expect("LINE<(.*)>\r\n")
        assert shell.match
        shell.send("\x15")
        return str(shell.match[1])

    return press


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_tab_in_bash_completes_the_line(work_folder: Path, press_tab: Callable[[str], str]) -> None:
    """No blank after a folder or "key=", values behind "=", names with blanks quoted as what was typed is."""
    (work_folder / "runs/Prüf eins").mkdir()
    (work_folder / "runs/Prüf eins/plan.yaml").write_text(PLAN, "utf-8")
    lines = {
        "tunewise ask ol": "tunewise ask old/",
        "tunewise ask old/": "tunewise ask old/desk ",
        "tunewise plan --set facts_ch": "tunewise plan --set facts_change=",
        "tunewise plan --set facts_change=st": "tunewise plan --set facts_change=static ",
        "tunewise plan --set facts_change=": "tunewise plan --set facts_change=",
        "tunewise plan --set=must_cite=y": "tunewise plan --set=must_cite=yes ",
        "tunewise ask runs/P": "tunewise ask runs/Prüf\\ eins ",
        "tunewise ask runs/Prüf\\ e": "tunewise ask runs/Prüf\\ eins ",
        'tunewise ask "runs/Prüf e': 'tunewise ask "runs/Prüf eins" ',
        'tunewise ask "runs/Prüf eins" q --arm ra': 'tunewise ask "runs/Prüf eins" q --arm rag ',
        "tunewise ask runs/Prüf\\ eins q --arm=p": "tunewise ask runs/Prüf\\ eins q --arm=prompting ",
        "tunewise report tab": "tunewise report tab.sh ",
    }
    assert {line: press_tab(line) for line in lines} == lines


@pytest.mark.skipif(os.name == "nt", reason="names shells of POSIX")
def test_show_completion_prints_script_of_named_shell(root: Path, tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(root)}
    for shell, mark in (("zsh", "#compdef"), ("fish", "complete --command"), ("bash", "COMPREPLY")):
        done = subprocess.run(
            [sys.executable, "-m", "advisor", "--show-completion", shell],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=HANG_S,
            check=False,
        )
        assert mark in done.stdout, (shell, done)


@pytest.mark.skipif(os.name == "nt", reason="names shells of POSIX")
def test_install_completion_writes_the_script_that_is_shown(root: Path, tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(root), "HOME": str(tmp_path)}
    shown, installed, zsh = (
        subprocess.run(
            [sys.executable, "-m", "advisor", *line],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=HANG_S,
            check=True,
        ).stdout
        for line in (
            ("--show-completion", "bash"),
            ("--install-completion", "bash"),
            ("--install-completion", "zsh"),
        )
    )
    path = tmp_path / ".bash_completions" / "tunewise.sh"
    assert str(path) in installed
    assert path.read_text("utf-8") == shown
    assert "COMP_CWORD=-1" in shown
    assert str(path) in (tmp_path / ".bashrc").read_text("utf-8")
    assert "zsh completion installed" in zsh
    assert "#compdef tunewise" in (tmp_path / ".zfunc" / "_tunewise").read_text("utf-8")


def test_line_is_split_like_the_shell_does() -> None:
    assert completion.split_line('a "b c" d\\ e \'f') == ["a", "b c", "d e", "f"]
    for line, typed in {
        "a b": "b",
        "a ": "",
        'a "b c': '"b c',
        "a b\\ c": "b\\ c",
        "a 'b\\' c": "c",
        "": "",
    }.items():
        assert completion.last_word(line) == typed, line
    assert completion.replacement_for_word("$x y", "$", "$") == "\\$x\\ y"
    assert completion.replacement_for_word('a"b', '"a', "a") == 'a\\"b'


def test_broken_user_facts_complete_no_models(work_folder: Path, root: Path) -> None:
    (work_folder / "facts.yaml").write_text("{", "utf-8")
    line = "tunewise plan --model qwen2.5-0"
    assert completions(work_folder, root, line)[line] == ["qwen2.5-0.5b-instruct"]
    assert completions(work_folder, root, line, TUNEWISE_FACTS=str(work_folder / "facts.yaml"))[line] == []


def test_completions_include_every_rule_method_and_question() -> None:
    from advisor.methods.registry import METHODS
    from advisor.questionnaire.questions import QUESTIONS
    from advisor.rules.registry import RULES

    assert {rule.code() for rule in RULES} | {m.name for m in METHODS} <= {
        v for v, _ in completion.complete_explained("")
    }
    assert [value for value, _ in completion.complete_answers("")] == [
        f"{question.id}=" for question in QUESTIONS
    ]


def test_bash_script_is_printed(tmp_path: Path, root: Path) -> None:
    """Typer's own options install it or show it."""
    env = {**os.environ, "PYTHONPATH": str(root), "_TUNEWISE_COMPLETE": "source_bash"}
    code = "from advisor.cli import main; main([])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert "_tunewise_completion()" in done.stdout
