"""Take out of an answer what a program that shows it would fetch, open or run: links, images, tags, addresses."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rag.clean import line, visible

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


def inert(text: str, sources: Sequence[str] = ()) -> str:
    """Return an answer in which nothing is fetched, clicked or obeyed.

    Images become their description, links their words, HTML tags nothing. A bare address stays only where it
    stands just so in one of ``sources`` (the passages shown, the question), so that an answer can never carry
    away what was said in an address of its own; and without its scheme, so that no program makes it a link.
    """
    text = visible(text)
    for _ in range(_ROUNDS):  # what is taken out may leave a link behind
        before = text
        text = _LINK.sub(r"\1", _DEFINED.sub("", text.replace("![", "[")))
        text = _BARE.sub(lambda match: _known(match.group(), sources), _TAG.sub("", text))
        if text == before:
            return text
    return _BARE.sub("", re.sub(r"[\[\]<>!]+", " ", text))  # nobody writes this by chance


def unlinked(text: str) -> str:
    """Return what a document says, visible and on one line, its addresses without the schemes that make them links."""
    return _SCHEME.sub("", line(text))


def _known(address: str, sources: Sequence[str]) -> str:
    bare = address.strip("<>").rstrip(_TRAILING)
    rest = address.strip("<>")[len(bare) :]
    whole = re.compile(re.escape(bare) + r"(?![\w/&=?#%~+-])")
    found = any(whole.search(source) for source in sources) and not re.match(
        "(?:data|javascript|vbscript):", bare, re.I
    )
    return f"{_SCHEME.sub('', bare) if found else '[address removed]'}{rest}"
