"""Make text harmless: what no reader sees, what a terminal obeys, what a chat template treats as a mark.

Documents, questions and answers come from other people. :func:`strip_invisible` leaves only what can be seen,
:func:`single_line` keeps it on one line, and :func:`neutralise_control_tokens` breaks the marks with which
chat templates separate turns. :func:`neutralise_links` takes out of an answer what a program that shows it
would fetch, open or run: links, images, tags, addresses; :func:`defang_text` takes the schemes off the
addresses of a document's text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_TERMINAL_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"  # colours, cursor
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)?"  # titles, links, devices
    r"|\x1b[ -/]*[0-~]?"
)
_LINE_ENDS = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_SPELLING_JOINERS = re.compile("(?<=[^\x00-\u02ff])[\u200c\u200d](?=[^\x00-\u02ff])")
"""Zero-width joiners inside words of other scripts and between emoji, which are spelling; between Latin
letters they only hide characters."""
_FLAG_EMOJI = re.compile("\U0001f3f4[\U000e0030-\U000e007a]{1,6}\U000e007f")
_ALLOWED_CONTROLS = "\n\t"
_BLANK_CHARACTERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0\ufffc")
"""Letters and marks by their Unicode category, yet nothing is drawn for them."""
_NUMBER_SIGNS = frozenset(
    "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"
)
"""Invisible format characters by their Unicode category, yet drawn."""

_CONTROL_TOKENS = re.compile(
    r"<(?=[|｜][^<>\n]{1,60}[|｜]>)"  # <|im_start|>, <｜User｜>
    r"|<(?=/?(?:s|bos|eos|pad|unk|mask|cls|sep|start_of_turn|end_of_turn|start_of_image|end_of_image)>)"
    r"|<(?=<?/?SYS>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_RESULTS|TOOL_CALLS|CLS|SEP|MASK|PAD|UNK)\])",
    re.I,
)

_URL = r"(?:[a-z][a-z0-9+.-]{0,20}://|(?:javascript|vbscript|mailto):(?=\S)|data:(?=\w+/))"
_LINK = re.compile(r"\[([^\[\]\n]*)\](?:\((?:[^()\n]|\([^()\n]*\))*\)?|\[[^\]\n]*[^\]\d\n][^\]\n]*\])")
_LINK_DEFINITION = re.compile(r"^[ \t]*\[[^\]\n]+\]:[ \t]*\S.*$", re.M)
_FETCHING_TAGS = (
    "a|img|image|script|iframe|frame|object|embed|video|audio|source|track|link|style|form|input|button|svg|meta|base"
    "|body|html|area|map|picture|portal"
)
_HTML_TAG = re.compile(rf"</?(?:(?:{_FETCHING_TAGS})\b[^<>]*|[a-z][\w-]*\s[^<>]*=[^<>]*)(?:>|(?=<)|$)", re.I)
_BARE_ADDRESS = re.compile(rf"<?{_URL}[^\s<>\"'`]+>?", re.I)
_MAX_ROUNDS = 20
_SCHEME = re.compile(_URL, re.I)
_TRAILING_PUNCTUATION = ".,;:!?)]}>'\"”’"


def strip_invisible(text: str) -> str:
    """Return the text without terminal escapes, control and invisible characters, and overriding directions.

    Line ends become a newline; tabs, accents, emoji and the spelling of every script stay.
    """
    text = _LINE_ENDS.sub("\n", _TERMINAL_ESCAPES.sub("", text))
    if text.isascii() and text.replace("\n", " ").replace("\t", " ").isprintable():
        return text
    allowed = {match.start() + n for match in _FLAG_EMOJI.finditer(text) for n in range(len(match.group()))}
    allowed |= {match.start() for match in _SPELLING_JOINERS.finditer(text)}
    return "".join(
        char for at, char in enumerate(text) if at in allowed or _is_visible(char, text[at - 1 : at])
    )


def single_line(text: str) -> str:
    """Return the visible text on one line, runs of space as one."""
    return " ".join(strip_invisible(text).split())


def neutralise_control_tokens(text: str) -> str:
    """Return the text with a space inside every mark that a chat template or tokenizer would treat as a control token."""
    return _CONTROL_TOKENS.sub(lambda match: f"{match.group()} ", text)


def neutralise_links(text: str, sources: Sequence[str] = ()) -> str:
    """Return an answer without anything that a program would fetch, open or run.

    Images become their description, links their text; HTML tags are removed. A bare address stays only when
    one of the sources contains exactly it, so that an answer cannot send data away in an address of its own,
    and it loses its scheme, so that no program makes it a link.

    Args:
        text: the answer.
        sources: the texts whose addresses may be repeated: the passages shown and the question.
    """
    text = strip_invisible(text)
    for _ in range(_MAX_ROUNDS):  # what is removed may leave a new link behind
        before = text
        text = _LINK.sub(r"\1", _LINK_DEFINITION.sub("", text.replace("![", "[")))
        text = _BARE_ADDRESS.sub(
            lambda match: _checked_address(match.group(), sources), _HTML_TAG.sub("", text)
        )
        if text == before:
            return text
    return _BARE_ADDRESS.sub("", re.sub(r"[\[\]<>!]+", " ", text))  # only an attack is nested so deeply


def defang_text(text: str) -> str:
    """Return a document's text, visible and on one line, its addresses without the schemes that make them links."""
    return _SCHEME.sub("", single_line(text))


def _is_visible(char: str, before: str) -> bool:
    """Return whether a character is drawn; ``before`` is the character before it, or empty."""
    if char.isascii():
        return char.isprintable() or char in _ALLOWED_CONTROLS
    if "\ufe00" <= char <= "\ufe0f":  # how the character before is drawn; a run of them spells hidden bytes
        return bool(before) and not before.isascii() and not "\ufe00" <= before <= "\ufe0f"
    if "\U000e0100" <= char <= "\U000e01ef" or char in _BLANK_CHARACTERS:
        return False
    return unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Cn") or char in _NUMBER_SIGNS


def _checked_address(address: str, sources: Sequence[str]) -> str:
    """Return an address without its scheme when a source contains it, else a note that it was removed."""
    bare = address.strip("<>").rstrip(_TRAILING_PUNCTUATION)
    rest = address.strip("<>")[len(bare) :]
    exact = re.compile(re.escape(bare) + r"(?![\w/&=?#%~+-])")  # not the beginning of a longer address
    runs_code = re.match("(?:data|javascript|vbscript):", bare, re.I)
    allowed = any(exact.search(source) for source in sources) and not runs_code
    return f"{_SCHEME.sub('', bare) if allowed else '[address removed]'}{rest}"
