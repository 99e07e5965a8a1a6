"""The Tab key in bash: the line goes to the completers as it was typed, and what they offer comes back as bash needs it.

Typer's own script splits at "=" (bash's words end there), puts a blank after "folder/" and "key=", and leaves names with
blanks unquoted.
"""

from __future__ import annotations

import os
import re
import shlex
from contextlib import suppress
from typing import Any

SCRIPT = """
%(complete_func)s() {
    mapfile -t COMPREPLY < <(env COMP_WORDS="${COMP_LINE:0:COMP_POINT}" COMP_CWORD=-1 TUNEWISE_WORD="$2" \\
                             %(autocomplete_var)s=complete_bash "$1")
    [[ -n ${COMPREPLY[0]} ]] || COMPREPLY=()
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[/=] ]] && compopt -o nospace
    return 0
}

complete -o default -F %(complete_func)s %(prog_name)s
"""
WORD = "TUNEWISE_WORD"
"""What bash takes for the word at the cursor, and replaces: the end of what was typed, from a "=" or ":" on."""
_SPECIAL = re.compile(r"([^\w@%+:,./=~-])")


def install() -> None:
    """Let Typer's bash script, and what answers it, be these; a Typer that is made otherwise keeps its own."""
    with suppress(ImportError, AttributeError, KeyError):
        from typer import _completion_classes, _completion_shared

        kept = _completion_classes.BashComplete

        class Bash(kept):  # type: ignore[misc, valid-type]
            """Typer's completion, given whole lines; scripts of before, which give words, are answered as before."""

            source_template = SCRIPT

            def get_completion_args(self) -> tuple[list[str], str]:
                if os.environ.get("COMP_CWORD") != "-1":
                    return super().get_completion_args()  # type: ignore[no-any-return]
                line = os.environ["COMP_WORDS"]
                before = words(line)
                return (before[1:-1], before[-1]) if last(line) else (before[1:], "")

            def format_completion(self, item: Any) -> str:
                if os.environ.get("COMP_CWORD") != "-1":
                    return str(item.value)
                return inserted(str(item.value), last(os.environ["COMP_WORDS"]), os.environ.get(WORD, ""))

        _completion_shared._completion_scripts["bash"] = SCRIPT
        _completion_classes.BashComplete = Bash  # type: ignore[misc]


def words(line: str) -> list[str]:
    """Return a line's words without their quotes; the last may lack its end."""
    lexer = shlex.shlex(line, posix=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    found: list[str] = []
    try:
        for word in lexer:
            found.append(word)
    except ValueError:
        found.append(lexer.token)
    return found


def last(line: str) -> str:
    """Return the line's last word as it was typed, quotes and all; "" behind a blank."""
    start, quote, at = 0, "", 0
    while at < len(line):
        letter = line[at]
        if letter == "\\" and quote != "'":
            at += 1
        elif quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter.isspace():
            start = at + 1
        at += 1
    return line[start:]


def inserted(value: str, typed: str, word: str) -> str:
    """Return what bash puts in the place of ``word``, the end of what was ``typed``, so that the value stands there."""
    if typed.startswith("-") and "=" in typed:
        typed = typed.partition("=")[2]
    quote = typed[:1] if typed[:1] in ('"', "'") else ""
    if quote:
        typed = typed[1:]
        value = re.sub(r'(["\\$`])', r"\\\1", value) if quote == '"' else value
    else:
        value = _SPECIAL.sub(r"\\\1", value)
    return value.removeprefix(typed[: len(typed) - len(word)])
