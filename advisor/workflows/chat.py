"""A conversation with a finished run: the last turns are kept, and follow-ups are rewritten to stand alone.

A model that looks things up itself sees the turns and the question as it is: what it searches for is its own choice.
"""

from __future__ import annotations

import sys
from pathlib import Path

from advisor.output import emit_result, note
from advisor.workflows.ask import Answerer, AskOptions
from runners.arms.followup import stand_alone
from runners.data.formats import Message

HELP = (
    "Type a question and press Enter. A short follow-up ('and on Sundays?') is completed from the question before it.\n"
    "/new forgets the conversation, /quit or an empty line ends it, /help shows this."
)
"""What /help prints."""
KEPT_TURNS = 2
"""Earlier question/answer pairs in the prompt of an arm that is not given passages; small models get confused by more."""


def converse(path: Path, options: AskOptions) -> None:
    """Answer questions until an empty line, /quit or the end of the input; ``HELP`` lists the other commands.

    With ``options.as_json`` a line of JSON is printed for each answer.
    """
    answerer = Answerer(path, options)
    answerer.prepare()
    arm = answerer.arm
    history: list[Message] = []
    previous = ""
    if sys.stdin.isatty():
        print(f"arm {arm.arm}; /help lists the commands, an empty line or /quit ends it", file=sys.stderr)
    while True:
        question = _next_question()
        if not question or question in ("/quit", "/exit"):
            return
        if reply := command_reply(question):
            if question == "/new":
                history, previous = [], ""
            note(reply)
            continue
        rewritten = question if arm.looks_up else stand_alone(question, previous)
        if rewritten != question:
            print(f"  (asked as: {rewritten})", file=sys.stderr)
        # With passages these give the context; earlier turns would only take space from them in the prompt.
        given_passages = arm.retrieval and not arm.looks_up
        shown_turns = () if given_passages else tuple(history[-2 * KEPT_TURNS :])
        if options.as_json:
            answer = answerer.ask(rewritten, shown_turns)
            emit_result(
                {**answer.reply_json(arm.arm), "question": question, "asked_as": rewritten}, ascii=True
            )
        else:
            answer = answerer.show(rewritten, shown_turns)
        answerer.note_drift()
        history += [{"role": "user", "content": question}, {"role": "assistant", "content": answer.text}]
        previous = rewritten


def command_reply(line: str) -> str:
    """Return what a command such as /help prints; "" for a question."""
    if not line.startswith("/") or " " in line:
        return ""
    if line == "/new":
        return "a new conversation starts"
    return HELP if line in ("/help", "/?") else f"{line} is no command. {HELP}"


def _next_question() -> str:
    if sys.stdin.isatty():
        try:
            return input("> ").strip()
        except EOFError:
            return ""
    return sys.stdin.readline().strip()
