"""Source code: functions and classes as blocks, with their names as headings; each block is an exact slice.

One reader for all languages: it finds the lines that begin a definition and follows their indentation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from rag.loading.base import line_spans, make_document
from rag.loading.encoding import decode_bytes
from rag.types import Block, Document

SUFFIXES = (
    *(".py", ".pyi", ".js", ".mjs", ".cjs", ".jsx", ".ts", ".tsx", ".java", ".kt", ".kts", ".scala"),
    *(".swift", ".c", ".h", ".cc", ".cpp", ".cxx", ".hpp", ".cs", ".go", ".rs", ".rb", ".php", ".lua"),
    *(".pl", ".pm", ".r", ".jl", ".m", ".ex", ".exs", ".erl", ".hs", ".ml", ".clj", ".dart", ".zig"),
    *(".nim", ".f90", ".sh", ".bash", ".zsh", ".ps1", ".sql", ".proto", ".tf", ".vue", ".css", ".scss"),
)
_MODIFIERS = (
    "export|default|public|private|protected|internal|static|async|abstract|final|sealed|override|open|data|pub|"
    "unsafe|inline|virtual|extern|const|partial|local|suspend"
)
_KEYWORDS = (
    "def|class|function|fn|func|fun|struct|enum|trait|impl|interface|module|namespace|object|record|sub|message|"
    "service|defmodule|protocol|extension"
)
_DEFINITION = re.compile(
    rf"(?:(?:{_MODIFIERS})(?:\(\w*\))? +){{0,6}}(?:{_KEYWORDS})\b\*? *(?:\([^)]{{0,80}}\) *)?([\w.$:]+)"
)
_ARROW_FUNCTION = re.compile(
    r"(?:export +)?(?:const|let|var) +([\w$]+)(?: *:[^=]{0,80})? *= *(?:async *)?(?:function|\(|\w+ *=>)"
)
_SQL_DEFINITION = re.compile(
    r"create +(?:or +replace +)?(?:temp\w* +)?(?:table|view|function|procedure|trigger|index) +"
    r"(?:if +not +exists +)?([\w.\"`\[\]]+)",
    re.I,
)
_TYPED_FUNCTION = re.compile(
    r"(?:[\w:<>,*&~\[\]]{1,80} +){1,5}[*&]*([\w:~]{1,80})\([^;{}]{0,300}\)[^;=]{0,60}$"
)
_STATEMENT_KEYWORDS = {
    "return",
    "else",
    "new",
    "throw",
    "delete",
    "if",
    "for",
    "while",
    "switch",
    "case",
    "await",
}
_COMMENT_STARTS = ("#", "//", "/*", "*", "@", "--", ";;", '"""', "[", "%")
_MAX_LINE_CHARS = 400


def read(id: str, data: bytes) -> Iterator[Document]:
    """Yield the file as one document titled by its name."""
    raw, meta = decode_bytes(data)
    yield make_document(id, PurePosixPath(id).name, raw, _blocks(raw), "code", meta)


def _blocks(raw: str) -> Iterator[Block]:
    """Yield a block for every definition, with the comments and decorators right above it."""
    lines = [(start, end, raw[start:end].rstrip()) for start, end in line_spans(raw)]
    path: list[tuple[int, str]] = []  # indentation and name of the definitions around a line
    begin = 0
    for at, (_, _, line) in enumerate(lines):
        text = line.lstrip()
        if not text or len(line) > _MAX_LINE_CHARS:
            continue
        indent = len(line) - len(text)
        name = _defined_name(text, indent)
        # A statement at the left margin ends the definitions above it; closing brackets and comments do not.
        ends = path and indent <= path[-1][0] and not name and indent == 0 and text[0] not in "{)}]#/*;"
        if not name and not ends:
            continue
        first = _comment_start(lines, at, begin, indent) if name else at
        yield from _block_of_lines(raw, lines[begin:first], path)
        begin = first
        path = [(depth, other) for depth, other in path if depth < indent]
        path += [(indent, name)] if name else []
    yield from _block_of_lines(raw, lines[begin:], path)


def _defined_name(text: str, indent: int) -> str:
    """Return the name that a line defines, or ""."""
    for pattern in (_DEFINITION, _ARROW_FUNCTION, _SQL_DEFINITION):
        if match := pattern.match(text):
            return match.group(1).rstrip(":.")
    if indent == 0 and "(" in text and text.split(None, 1)[0] not in _STATEMENT_KEYWORDS:
        match = _TYPED_FUNCTION.match(text.rstrip("{ "))
        return match.group(1) if match else ""
    return ""


def _comment_start(lines: list[tuple[int, int, str]], at: int, begin: int, indent: int) -> int:
    """Return the line at which the comments and decorators of the definition at ``at`` begin."""
    while at > begin:
        line = lines[at - 1][2]
        if not line.lstrip().startswith(_COMMENT_STARTS) or len(line) - len(line.lstrip()) < indent:
            break
        at -= 1
    return at


def _block_of_lines(
    raw: str, lines: list[tuple[int, int, str]], path: list[tuple[int, str]]
) -> Iterator[Block]:
    """Yield the block of some lines without blank ones at its ends; none when all are blank."""
    written = [n for n, (_, _, line) in enumerate(lines) if line]
    if written:
        start, end = lines[written[0]][0], lines[written[-1]][1]
        end = start + len(raw[start:end].rstrip())
        yield Block("code", raw[start:end], start, end, " > ".join(name for _, name in path))
