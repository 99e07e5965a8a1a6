"""Shell completion: verbs, runs, plans, models, rules, answers and arms, without importing anything heavy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

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
        "tunewise --format ": ["human", "json"],
        "tunewise export runs/desk --to p": ["peft", "provider-jsonl"],
        "tunewise train --method ": ["lora", "qlora", "full"],
        "tunewise estimate --method few": ["few-shot"],
    }
    suggestions = completions(work_folder, root, *expected, TUNEWISE_PROFILES=str(work_folder / "profiles"))
    assert suggestions == expected


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


def test_arms_are_those_of_the_run_on_the_line(work_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also behind a quote that is still open, and of no run that cannot be read."""
    monkeypatch.chdir(work_folder)
    lines = {"ask runs/desk 'one q": ["rag"], "ask runs/other q": []}
    for line, arms in lines.items():
        monkeypatch.setenv("COMP_WORDS", f"tunewise {line} --arm r")
        assert [name for name, _ in completion.complete_arms("r")] == arms, line


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
