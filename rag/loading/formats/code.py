"""Source code: functions and classes as blocks with their names as headings, each an exact slice.

One reader for all languages: it looks for lines that begin a definition and follows their indentation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from rag.loading.base import line_spans, make_document
from rag.loading.encoding import decode_bytes
from rag.types import Block, Document

SUFFIXES = (
    *(
        ".py",
        ".pyi",
        ".js",
        ".mjs",
        ".cjs",
        ".jsx",
        ".ts",
        ".tsx",
        ".java",
        ".kt",
        ".kts",
        ".scala",
        ".swift",
    ),
    *(".c", ".h", ".cc", ".cpp", ".cxx", ".hpp", ".cs", ".go", ".rs", ".rb", ".php", ".lua", ".pl", ".pm"),
    *(".r", ".jl", ".m", ".ex", ".exs", ".erl", ".hs", ".ml", ".clj", ".dart", ".zig", ".nim", ".f90"),
    *(".sh", ".bash", ".zsh", ".ps1", ".sql", ".proto", ".tf", ".vue", ".css", ".scss"),
)
_WORDS = (
    "export|default|public|private|protected|internal|static|async|abstract|final|sealed|override|open|data|pub|"
    "unsafe|inline|virtual|extern|const|partial|local|suspend"
)
_KINDS = (
    "def|class|function|fn|func|fun|struct|enum|trait|impl|interface|module|namespace|object|record|sub|message|"
    "service|defmodule|protocol|extension"
)
_DEFINITION = re.compile(
    rf"(?:(?:{_WORDS})(?:\(\w*\))? +){{0,6}}(?:{_KINDS})\b\*? *(?:\([^)]{{0,80}}\) *)?([\w.$:]+)"
)
_ARROW = re.compile(
    r"(?:export +)?(?:const|let|var) +([\w$]+)(?: *:[^=]{0,80})? *= *(?:async *)?(?:function|\(|\w+ *=>)"
)
_SQL = re.compile(
    r"create +(?:or +replace +)?(?:temp\w* +)?(?:table|view|function|procedure|trigger|index) +"
    r"(?:if +not +exists +)?([\w.\"`\[\]]+)",
    re.I,
)
_TYPED = re.compile(r"(?:[\w:<>,*&~\[\]]{1,80} +){1,5}[*&]*([\w:~]{1,80})\([^;{}]{0,300}\)[^;=]{0,60}$")
_NOT_TYPED = {"return", "else", "new", "throw", "delete", "if", "for", "while", "switch", "case", "await"}
_LEADING = ("#", "//", "/*", "*", "@", "--", ";;", '"""', "[", "%")
_LONGEST_LINE = 400


def read(id: str, data: bytes) -> Iterator[Document]:
    """Yield the file as one document titled by its name."""
    raw, meta = decode_bytes(data)
    yield make_document(id, PurePosixPath(id).name, raw, _blocks(raw), "code", meta)


def _blocks(raw: str) -> Iterator[Block]:
    """Yield a block for every definition, with the comments and decorators right above it."""
    lines = [(a, b, raw[a:b].rstrip()) for a, b in line_spans(raw)]
    path: list[tuple[int, str]] = []
    begin = 0
    for at, (_, _, line) in enumerate(lines):
        text = line.lstrip()
        if not text or len(line) > _LONGEST_LINE:
            continue
        indent = len(line) - len(text)
        name = _defined(text, indent)
        ends = path and indent <= path[-1][0] and not name and indent == 0 and text[0] not in "{)}]#/*;"
        if not name and not ends:
            continue
        top = _above(lines, at, begin, indent) if name else at
        yield from _slice(raw, lines[begin:top], path)
        begin = top
        path = [(depth, other) for depth, other in path if depth < indent]
        path += [(indent, name)] if name else []
    yield from _slice(raw, lines[begin:], path)


def _defined(text: str, indent: int) -> str:
    """Return the name that a line defines, or nothing."""
    for pattern in (_DEFINITION, _ARROW, _SQL):
        if found := pattern.match(text):
            return found.group(1).rstrip(":.")
    if indent == 0 and "(" in text and text.split(None, 1)[0] not in _NOT_TYPED:
        found = _TYPED.match(text.rstrip("{ "))
        return found.group(1) if found else ""
    return ""


def _above(lines: list[tuple[int, int, str]], at: int, begin: int, indent: int) -> int:
    """Return the line at which the comments and decorators of the definition at ``at`` begin."""
    while at > begin:
        line = lines[at - 1][2]
        if not line.lstrip().startswith(_LEADING) or len(line) - len(line.lstrip()) < indent:
            break
        at -= 1
    return at


def _slice(raw: str, lines: list[tuple[int, int, str]], path: list[tuple[int, str]]) -> Iterator[Block]:
    written = [n for n, (_, _, line) in enumerate(lines) if line]
    if written:
        start, end = lines[written[0]][0], lines[written[-1]][1]
        end = start + len(raw[start:end].rstrip())
        yield Block("code", raw[start:end], start, end, " > ".join(name for _, name in path))
