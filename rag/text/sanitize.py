"""Make text harmless: what no reader sees, what a terminal obeys, what a chat template means.

Documents, questions and answers are all written by somebody else. ``visible`` leaves only what can be seen,
``line`` keeps it on one line, and ``unmarked`` breaks the marks that chat models take for turns.

Take out of an answer what a program that shows it would fetch, open or run: links, images, tags, addresses.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"  # colours, cursor
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)?"  # titles, links, devices
    r"|\x1b[ -/]*[0-~]?"
)
_ENDS = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_JOINERS = re.compile("(?<=[^\x00-\u02ff])[\u200c\u200d](?=[^\x00-\u02ff])")
"""Joiners inside words of other scripts and between emoji are spelling; between Latin letters they hide."""
_FLAG = re.compile("\U0001f3f4[\U000e0030-\U000e007a]{1,6}\U000e007f")
_KEPT = "\n\t"
_UNSEEN = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0\ufffc")
"""Letters and marks by their category, yet nothing is drawn for them."""
_NUMBER_SIGNS = frozenset(
    "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"
)
"""Of the category of invisible format characters, yet drawn."""

_TURNS = re.compile(
    r"<(?=[|｜][^<>\n]{1,60}[|｜]>)"  # <|im_start|>, <｜User｜>
    r"|<(?=/?(?:s|bos|eos|pad|unk|mask|cls|sep|start_of_turn|end_of_turn|start_of_image|end_of_image)>)"
    r"|<(?=<?/?SYS>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_RESULTS|TOOL_CALLS|CLS|SEP|MASK|PAD|UNK)\])",
    re.I,
)


def strip_invisible(text: str) -> str:
    """Return the text without terminal escapes, control and invisible characters, and overriding directions.

    Line ends become a newline; tabs, accents, emoji and the spelling of every script stay.
    """
    text = _ENDS.sub("\n", _ESCAPES.sub("", text))
    if text.isascii() and text.replace("\n", " ").replace("\t", " ").isprintable():
        return text
    spared = {match.start() + n for match in _FLAG.finditer(text) for n in range(len(match.group()))}
    spared |= {match.start() for match in _JOINERS.finditer(text)}
    return "".join(char for at, char in enumerate(text) if at in spared or _is_seen(char, text[at - 1 : at]))


def single_line(text: str) -> str:
    """Return the visible text on one line, runs of space as one."""
    return " ".join(strip_invisible(text).split())


def neutralise_control_tokens(text: str) -> str:
    """Return the text with a space inside every mark that some chat template or tokenizer takes for its own."""
    return _TURNS.sub(lambda match: f"{match.group()} ", text)


def _is_seen(char: str, before: str) -> bool:
    if char.isascii():
        return char.isprintable() or char in _KEPT
    if "\ufe00" <= char <= "\ufe0f":  # how the character before is drawn; a run of them spells hidden bytes
        return bool(before) and not before.isascii() and not "\ufe00" <= before <= "\ufe0f"
    if "\U000e0100" <= char <= "\U000e01ef" or char in _UNSEEN:
        return False
    return unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Cn") or char in _NUMBER_SIGNS


_URL = r"(?:[a-z][a-z0-9+.-]{0,20}://|(?:javascript|vbscript|mailto):(?=\S)|data:(?=\w+/))"
_LINK = re.compile(r"\[([^\[\]\n]*)\](?:\((?:[^()\n]|\([^()\n]*\))*\)?|\[[^\]\n]*[^\]\d\n][^\]\n]*\])")
_DEFINED = re.compile(r"^[ \t]*\[[^\]\n]+\]:[ \t]*\S.*$", re.M)
_FETCHING = (
    "a|img|image|script|iframe|frame|object|embed|video|audio|source|track|link|style|form|input|button|svg|meta|base"
    "|body|html|area|map|picture|portal"
)
_TAG = re.compile(rf"</?(?:(?:{_FETCHING})\b[^<>]*|[a-z][\w-]*\s[^<>]*=[^<>]*)(?:>|(?=<)|$)", re.I)
_BARE = re.compile(rf"<?{_URL}[^\s<>\"'`]+>?", re.I)
_ROUNDS = 20
_SCHEME = re.compile(_URL, re.I)
_TRAILING = ".,;:!?)]}>'\"”’"


def neutralise_links(text: str, sources: Sequence[str] = ()) -> str:
    """Return an answer in which nothing is fetched, clicked or obeyed.

    Images become their description, links their words, HTML tags nothing. A bare address stays only where it
    stands just so in one of ``sources`` (the passages shown, the question), so that an answer can never carry
    away what was said in an address of its own; and without its scheme, so that no program makes it a link.
    """
    text = strip_invisible(text)
    for _ in range(_ROUNDS):  # what is taken out may leave a link behind
        before = text
        text = _LINK.sub(r"\1", _DEFINED.sub("", text.replace("![", "[")))
        text = _BARE.sub(lambda match: _known(match.group(), sources), _TAG.sub("", text))
        if text == before:
            return text
    return _BARE.sub("", re.sub(r"[\[\]<>!]+", " ", text))  # nobody writes this by chance


def defang_text(text: str) -> str:
    """Return what a document says, visible and on one line, its addresses without the schemes that make them links."""
    return _SCHEME.sub("", single_line(text))


def _known(address: str, sources: Sequence[str]) -> str:
    bare = address.strip("<>").rstrip(_TRAILING)
    rest = address.strip("<>")[len(bare) :]
    whole = re.compile(re.escape(bare) + r"(?![\w/&=?#%~+-])")
    found = any(whole.search(source) for source in sources) and not re.match(
        "(?:data|javascript|vbscript):", bare, re.I
    )
    return f"{_SCHEME.sub('', bare) if found else '[address removed]'}{rest}"
