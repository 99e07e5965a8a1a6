"""`tunewise chat`: commands that begin with a slash are not questions."""

from __future__ import annotations

from advisor.workflows.chat import HELP, command_reply


def test_commands_are_told_from_questions() -> None:
    assert command_reply("/help") == HELP
    assert command_reply("/new") == "a new conversation starts"
    assert command_reply("/halp").startswith("/halp is no command")
    assert command_reply("/etc/hosts or where is it?") == ""
    assert command_reply("How long is the code valid?") == ""
