"""A conversation with a finished run: the last turns are kept, follow-ups are made to stand alone."""

from __future__ import annotations

import sys
from pathlib import Path

from advisor.display.answer_view import show_streaming
from advisor.display.events import print_event
from advisor.output import emit_result
from runners.arms.followup import stand_alone
from runners.data.formats import Message
from runners.runs.run import open_session

KEPT_TURNS = 2
"""Earlier question/answer pairs an arm without retrieval is shown; small models lose the thread beyond that."""


def converse(path: Path, arm_name: str | None, as_json: bool = False, model: Path | None = None) -> None:
    """Answer questions until an empty line, /quit or the end of the input; ``as_json`` prints a line for each answer."""
    session = open_session(path, print_event, model)
    arm = session.arm(arm_name)
    history: list[Message] = []
    previous = ""
    if sys.stdin.isatty():
        print(f"arm {arm.arm}; an empty line or /quit ends it", file=sys.stderr)
    while True:
        question = _next_question()
        if not question or question in ("/quit", "/exit"):
            return
        alone = stand_alone(question, previous)
        if alone != question:
            print(f"  (asked as: {alone})", file=sys.stderr)
        # With retrieval the passages carry the context; earlier turns would only push them out of a small window.
        shown = () if arm.retrieval else tuple(history[-2 * KEPT_TURNS :])
        if as_json:
            answer = session.ask([alone], arm, shown)[0]
            emit_result({**answer.reply_json(arm.arm), "question": question, "asked_as": alone}, ascii=True)
        else:
            answer = show_streaming(session.stream(alone, arm, shown), arm.arm)
        history += [{"role": "user", "content": question}, {"role": "assistant", "content": answer.text}]
        previous = alone


def _next_question() -> str:
    if sys.stdin.isatty():
        try:
            return input("> ").strip()
        except EOFError:
            return ""
    return sys.stdin.readline().strip()
