"""What Tab offers: verbs, runs, plans, models, rules, answers, arms; asked as a shell asks, without anything heavy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from advisor import completing

ASK = """
import io, json, os, sys
from contextlib import redirect_stdout
from advisor.cli import main

told = {}
for words in json.loads(sys.argv[1]):
    out = io.StringIO()
    os.environ.update(_TUNEWISE_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(words.count(" ")))
    with redirect_stdout(out):
        try:
            main([])
        except SystemExit:
            pass
    told[words] = out.getvalue().split()
heavy = {"torch", "transformers", "faiss", "peft", "scipy", "numpy", "questionary"} & set(sys.modules)
print(json.dumps([told, sorted(heavy)]))
"""
PLAN = (
    "name: desk\nsteps:\n- {kind: index}\n- {kind: evaluate, arm: rag}\n- {kind: evaluate, arm: prompting}\n"
)


def offered(folder: Path, root: Path, *words: str, **environ: str) -> dict[str, list[str]]:
    """Return what the shell is offered for each line, whose last word is being typed; nothing heavy may be imported."""
    env = {**os.environ, "PYTHONPATH": str(root), **environ}
    done = subprocess.run([sys.executable, "-c", ASK, json.dumps(words)], cwd=folder, env=env, capture_output=True,
                          text=True, timeout=60, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    told, heavy = json.loads(done.stdout)
    assert heavy == []
    return told


@pytest.fixture
def place(tmp_path: Path) -> Path:
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


def test_the_shell_is_offered_what_there_is(place: Path, root: Path) -> None:
    expected = {
        "tunewise mod": ["models"],
        "tunewise runs ": ["list", "show", "diff", "rm", "undo"],
        "tunewise ask ": ["runs/desk", "runs/other", "old/", "profiles/", "runs/"],
        "tunewise report old/": ["old/desk"],
        "tunewise runs rm runs/d": ["runs/desk"],
        "tunewise run pl": ["plan.yaml"],
        "tunewise ask runs/desk q --arm ": ["rag", "prompting"],
        "tunewise ask runs/other q --arm ": [],
        "tunewise models pull s": ["smollm2-135m-instruct"],
        "tunewise explain KN002": ["KN002"],
        "tunewise explain hy": ["hybrid"],
        "tunewise plan --set facts_ch": ["facts_change="],
        "tunewise plan --set facts_change=s": ["facts_change=static", "facts_change=slow"],
        "tunewise plan --set must_cite=": ["must_cite=yes", "must_cite=no"],
        "tunewise plan --set nothing=": [],
        "tunewise plan --profile h": ["harbor"],
        "tunewise --format ": ["human", "json", "plain"],
    }
    told = offered(place, root, *expected, TUNEWISE_PROFILES=str(place / "profiles"))
    assert told == expected


def test_models_are_offered_even_where_own_facts_are_broken(place: Path, root: Path) -> None:
    (place / "facts.yaml").write_text("{", "utf-8")
    line = "tunewise plan --model qwen2.5-0"
    assert offered(place, root, line)[line] == ["qwen2.5-0.5b-instruct"]
    assert offered(place, root, line, TUNEWISE_FACTS=str(place / "facts.yaml"))[line] == []


def test_every_rule_method_and_question_is_offered() -> None:
    from advisor.methods.table import METHODS
    from advisor.questions import QUESTIONS
    from advisor.rules.table import RULES

    assert {rule.code() for rule in RULES} | {m.name for m in METHODS} <= {
        v for v, _ in completing.explained("")
    }
    assert [value for value, _ in completing.answers("")] == [f"{question.id}=" for question in QUESTIONS]


def test_the_script_is_shown(tmp_path: Path, root: Path) -> None:
    """Typer's own options install it or show it."""
    env = {**os.environ, "PYTHONPATH": str(root), "_TUNEWISE_COMPLETE": "source_bash"}
    code = "from advisor.cli import main; main([])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert "_tunewise_completion()" in done.stdout
