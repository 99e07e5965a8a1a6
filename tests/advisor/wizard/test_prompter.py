"""The wizard on a real terminal: once with back, once with Ctrl-C and resume."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import pexpect
import pytest
import yaml

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX terminal")
DOWN, UP, ENTER = "\x1b[B", "\x1b[A", "\r"


class Terminal:
    """A person at the keyboard."""

    def __init__(self, root: Path, cwd: Path, *arguments: str, size: tuple[int, int] = (50, 160)) -> None:
        env = {
            **os.environ,
            "PYTHONPATH": str(root),
            "TUNEWISE_PROFILES": str(cwd / "profiles"),
            "TERM": "xterm",
            "NO_COLOR": "1",
            "PROMPT_TOOLKIT_NO_CPR": "1",
        }
        line = ["-c", "from advisor.cli import main; main()", *arguments]
        self.child = pexpect.spawn(
            sys.executable, line, cwd=str(cwd), env=env, encoding="utf-8", timeout=30, dimensions=size
        )

    def answer(self, text: str, keys: str) -> None:
        """Wait for a question, then type."""
        self.child.expect_exact(text)
        self.child.send(keys)

    def expect(self, text: str) -> None:
        """Wait for a text."""
        self.child.expect_exact(text)

    def pointer(self, choice: str) -> None:
        """Wait for a list whose pointer stands on this choice, however it is coloured."""
        self.child.expect(rf"» (?:\x1b\[[\d;]*m)*{re.escape(choice)}")

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
    t.answer("How often do these facts change?", UP * 2 + ENTER)
    t.answer("name its source?", UP * 2 + ENTER)
    t.answer("from what you need?", UP + ENTER)
    t.expect("(was rag)")
    t.answer("How many calls", UP * 2 + ENTER)
    t.answer("stay on your own machines?", UP + ENTER)
    t.answer("What does a wrong answer cost?", UP * 2 + ENTER)
    t.answer("Which base model?", ENTER)
    t.expect("as it stands")
    t.answer("Is this right?", DOWN + ENTER)
    t.expect("hybrid")
    t.expect("wrote the decision record decision.md")
    t.answer("Run plan.yaml now?", f"n{ENTER}")
    assert t.code() == 0
    plan = yaml.safe_load((desk.folder / "plan.yaml").read_text("utf-8"))
    assert plan["choice"] == "hybrid"
    assert plan["answers"]["goal"] == {"value": "Help sailors", "source": "asked", "note": ""}
    chosen = {
        "facts_change": "slow",
        "must_cite": True,
        "behaviour_gap": "high",
        "call_volume": "low",
        "data_must_stay_local": False,
        "wrong_answer_cost": "low",
    }
    assert {key: plan["answers"][key]["value"] for key in chosen} == chosen
    assert plan["data"]["documents"] == "documents"
    assert "decision owner" in (desk.folder / "decision.md").read_text("utf-8")

    t = Terminal(root, desk.folder, "plan", "--answers", "plan.yaml")
    t.answer("Is this right?", DOWN * 3 + ENTER)
    t.answer("Name of the profile", f"Sail{ENTER}")
    t.answer("cannot be named 'Sail'", f"\x15sailors{ENTER}")
    t.expect("tunewise plan --profile sailors")
    t.answer("Is this right?", "\x03")
    assert t.code() == 130
    assert yaml.safe_load((desk.folder / "profiles" / "sailors.yaml").read_text("utf-8"))["must_cite"] is True


def test_the_review_offers_to_measure_first_and_no_is_the_default(root: Path, desk: Any) -> None:
    """With questions and documents or examples given; Enter alone measures nothing."""
    answers = desk.folder / "answers.yaml"
    answers.write_text(
        "goal: x\ndocuments: documents\nexamples: examples.jsonl\nquestions: questions.jsonl\nprompt: Be kind.\n"
        "task_needs_facts: new\nfacts_change: slow\nmust_cite: true\nbehaviour_gap: high\ncall_volume: high\n"
        "data_must_stay_local: true\nwrong_answer_cost: low\nmodel: smollm2-135m-instruct\n",
        "utf-8",
    )
    t = Terminal(root, desk.folder, "plan", "--answers", "answers.yaml")
    t.expect("Is this right?")
    t.answer("measure first: ask the base model", DOWN * 5 + ENTER)
    t.answer("Ask the base model some dev questions now?", ENTER)
    t.answer("Is this right?", "\x03")
    assert t.code() == 130
    assert not (desk.folder / "probe.yaml").exists()


TYPED = (
    "what should the model do?",
    "Where are the documents",
    "Where are examples",
    "Where are held-out questions",
)
LISTS = {
    "task_needs_facts": "Does a right answer need facts?",
    "facts_change": "How often do these facts change?",
    "must_cite": "name its source?",
    "behaviour_gap": "from what you need?",
    "output_format": "What form must",
    "call_volume": "How many calls",
    "data_must_stay_local": "stay on your own machines?",
    "wrong_answer_cost": "What does a wrong answer cost?",
}
COUNTED = ("How many examples", "How many tokens")


def test_enter_all_through_answers_nothing(root: Path, tmp_path: Path) -> None:
    """In lists as in typed questions; all that is known is the model offered and the machine, and the advice is unsure."""
    t = Terminal(root, tmp_path)
    lists = list(LISTS.values())
    for text in TYPED:
        t.answer(text, ENTER)
    for text in (*lists[:5], *COUNTED, *lists[5:]):
        t.expect(text)
        if text not in COUNTED:
            t.pointer("I don't know")
        t.child.send(ENTER)
        t.expect("unknown")
    t.answer("Which base model?", ENTER)
    t.expect("confidence low")
    t.answer("Is this right?", "\x03")
    assert t.code() == 130
    kept = yaml.safe_load((tmp_path / "tunewise-answers.yaml").read_text("utf-8"))
    assert kept.pop("model") == "smollm2-135m-instruct"
    assert set(kept) >= {"goal", "documents", "examples", "questions", "labelled_examples", *LISTS}
    assert set(kept.values()) == {None}


def test_the_pointer_starts_on_what_is_known(root: Path, tmp_path: Path) -> None:
    """Enter alone keeps an answer that is changed at the review; a known unknown stays one."""
    answers = tmp_path / "answers.yaml"
    every = dict.fromkeys(("goal", "documents", "examples", "questions", "output_format", *LISTS))
    answers.write_text(
        yaml.safe_dump(
            every
            | {
                "behaviour_gap": "low",
                "must_cite": False,
                "model": "smollm2-135m-instruct",
                "labelled_examples": 5,
                "corpus_tokens": 10,
            }
        ),
        "utf-8",
    )
    t = Terminal(root, tmp_path, "plan", "--answers", "answers.yaml")
    t.answer("Is this right?", DOWN * 2 + ENTER)
    t.answer("Which answer?", DOWN * 7 + ENTER)
    t.expect("name its source?")
    t.pointer("no")
    t.child.send(ENTER)
    t.answer("Is this right?", DOWN * 2 + ENTER)
    t.answer("Which answer?", DOWN * 8 + ENTER)
    t.expect("from what you need?")
    t.pointer("low")
    t.child.send("\x03")
    assert t.code() == 130
    kept = yaml.safe_load((tmp_path / "tunewise-answers.yaml").read_text("utf-8"))
    assert (kept["must_cite"], kept["behaviour_gap"], kept["call_volume"]) == (False, "low", None)


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


def test_models_are_offered_refused_and_closed_with_the_reason(root: Path, tmp_path: Path) -> None:
    """On a small terminal: a model too large is disabled, a name nobody knows is refused as it is typed."""
    answers = tmp_path / "answers.yaml"
    answers.write_text(
        "goal: x\ndocuments: null\nexamples: null\nquestions: null\ntask_needs_facts: none\n"
        "behaviour_gap: high\noutput_format: free\nlabelled_examples: 300\ncall_volume: low\n"
        "data_must_stay_local: true\nwrong_answer_cost: low\ngpu_kind: cuda\ngpu_count: 1\ngpu_memory_gib: 8\n",
        "utf-8",
    )
    t = Terminal(root, tmp_path, "plan", "--answers", "answers.yaml", size=(24, 80))
    t.expect("question 1 of at most 2")
    t.expect("GiB, the GPU gives 8.0)")
    t.answer("another: type its name", UP * 3 + ENTER)
    t.answer("Which base model?", f"qwen3-8{ENTER}")
    t.answer("did you mean qwen3-8b?", f"b{ENTER}")
    t.expect("as it stands")
    t.answer("Is this right?", ENTER)
    t.expect("no plan was written")
    assert t.code() == 0


def test_the_first_question_comes_at_once(root: Path, tmp_path: Path) -> None:
    """From the start of the process to the first question, the best of three (0.6 s here, more on a busy machine)."""
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        t = Terminal(root, tmp_path)
        t.expect("what should the model do?")
        seconds.append(time.perf_counter() - started)
        t.child.send("\x03")
        t.code()
    assert min(seconds) < 0.6 * 3
