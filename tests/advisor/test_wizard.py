"""The wizard on a real terminal: once with back, once with Ctrl-C and resume."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pexpect
import pytest
import yaml

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX terminal")
DOWN, ENTER = "\x1b[B", "\r"


class Terminal:
    """A person at the keyboard."""

    def __init__(self, root: Path, cwd: Path, *arguments: str) -> None:
        env = {
            **os.environ,
            "PYTHONPATH": str(root),
            "TERM": "xterm",
            "NO_COLOR": "1",
            "PROMPT_TOOLKIT_NO_CPR": "1",
        }
        line = ["-c", "from advisor.cli import main; main()", *arguments]
        self.child = pexpect.spawn(
            sys.executable, line, cwd=str(cwd), env=env, encoding="utf-8", timeout=30, dimensions=(50, 160)
        )

    def answer(self, text: str, keys: str) -> None:
        """Wait for a question, then type."""
        self.child.expect_exact(text)
        self.child.send(keys)

    def expect(self, text: str) -> None:
        """Wait for a text."""
        self.child.expect_exact(text)

    def code(self) -> int | None:
        """Wait for the end and return the exit code."""
        self.child.expect(pexpect.EOF)
        self.child.close()
        return self.child.exitstatus


def test_from_the_first_question_to_a_plan_with_back(root: Path, desk: Any) -> None:
    """Start, go back once, review, and the plan is written; running it is declined."""
    t = Terminal(root, desk.folder)
    t.answer("what should the model do?", f"Help sailers{ENTER}")
    t.answer("Where are the documents", f"<{ENTER}")
    t.answer("what should the model do?", f"\x15Help sailors{ENTER}")
    t.answer("Where are the documents", f"documents{ENTER}")
    t.answer("Where are examples", f"examples.jsonl{ENTER}")
    t.answer("Where are held-out questions", f"questions.jsonl{ENTER}")
    t.answer("Which instructions", f"prompt.txt{ENTER}")
    t.answer("How often do these facts change?", DOWN + ENTER)
    t.answer("name its source?", ENTER)
    t.answer("from what you need?", DOWN + DOWN + ENTER)
    t.answer("How many calls", ENTER)
    t.answer("stay on your own machines?", DOWN + ENTER)
    t.answer("What does a wrong answer cost?", ENTER)
    t.answer("Which base model?", ENTER)
    t.answer("Is this right?", ENTER)
    t.expect("hybrid")
    t.answer("Run plan.yaml now?", f"n{ENTER}")
    assert t.code() == 0
    plan = yaml.safe_load((desk.folder / "plan.yaml").read_text("utf-8"))
    assert plan["choice"] == "hybrid"
    assert plan["answers"]["goal"] == {"value": "Help sailors", "source": "asked", "note": ""}
    assert plan["data"]["documents"] == "documents"


def test_ctrl_c_saves_and_the_printed_line_resumes(root: Path, desk: Any) -> None:
    """Exit 130, the answers kept; the printed line goes on where it stopped."""
    t = Terminal(root, desk.folder, "plan")
    t.answer("what should the model do?", f"Help sailors{ENTER}")
    t.answer("Where are the documents", f"documents{ENTER}")
    t.answer("Where are examples", "\x03")
    t.expect("tunewise plan --answers tunewise-answers.yaml")
    assert t.code() == 130
    kept = yaml.safe_load((desk.folder / "tunewise-answers.yaml").read_text("utf-8"))
    assert kept == {"goal": "Help sailors", "documents": "documents"}

    t = Terminal(root, desk.folder, "plan", "--answers", "tunewise-answers.yaml")
    t.answer("Where are examples", f"/nowhere{ENTER}")
    t.answer("there is nothing at", f"\x15examples.jsonl{ENTER}")
    t.answer("Where are held-out questions", f"?{ENTER}")
    t.answer("Which instructions", "\x03")
    assert t.code() == 130
    kept = yaml.safe_load((desk.folder / "tunewise-answers.yaml").read_text("utf-8"))
    assert kept["examples"] == "examples.jsonl"
    assert kept["questions"] is None
