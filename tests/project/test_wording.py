"""Sentences for users use the field's plain words: private phrases are refused, and counts agree with their nouns."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

# Packages and folders whose sentences a user meets while a plan runs, in its verdict and its report.
CHECKED = (
    "runners/",
    "rag/",
    "advisor/report/",
    "advisor/verdict/",
    "advisor/display/",
    "advisor/workflows/",
)
# Modules whose strings are language that is read or written by the program: patterns, lexicons, prompts for a model.
LANGUAGE_MODULES = {
    "rag/embedding/language.py", "rag/evaluation/synthetic.py", "rag/sentences/clauses.py", "rag/sentences/lexicon.py",
    "rag/sentences/qualifiers.py", "rag/sentences/statements.py", "rag/sentences/verbs.py", "rag/sentences/wording.py",
    "rag/text/words.py",
    "runners/data/refusal_patterns.py", "runners/data/refusals.py", "runners/synthesis/reply_support.py",
    "runners/synthesis/teacher.py",
}  # fmt: skip
# A phrase of this project's own and the plain words for it.
PRIVATE_PHRASES = {
    r"surely|not surely|is not sure\b": "clearly, not clearly",
    r"only leans?|leans this way": "shows a tendency",
    r"bears? (?:it|the \w+|a part)? ?out|borne out": "supports, supported",
    r"house style|house's|the manner": "style",
    r"stands? in the way|in the way": "to correct first",
    r"gone on (?:with|from)|goes on|go on (?:with|from)|to go on\b": "continue",
    r"held to (?:a form|the form|account|the labels|it)|hold (?:it )?to account": "constrained to, tests",
    r"holds? (?:no|a|an|the|other|vectors|credentials|half|them|it)\b": "has, contains, stores",
    r"leave (?:it|one|them|out)|(?:is|was|were|are) left out": "remove, skipped, not counted",
    r"stands? (?:in|at|apart|beside) ": "is in, is at",
    r"\banew\b": "again",
    r"is gone\b|are gone\b": "no longer exists, has ended",
    r"nobody|whatever it": "no one",
    r"to tell (?:\w+ )?apart": "to distinguish, to compare",
    r"the fixed bank": "the examples drawn by the seed",
    r"says nothing": "proves nothing",
}
_PRIVATE = re.compile(r"\b(?:" + "|".join(PRIVATE_PHRASES) + ")", re.IGNORECASE)
NOUNS = "questions|answers|rows|examples|documents|passages|chunks|files|arms|seeds|labels|steps|pages|prompts|pairs"
_COUNTED = re.compile(rf" (?:(?:held-out|dev|test|training) )?(?:{NOUNS})\b")
MAX_PLAIN_COUNTS = 126
"""Counts that are printed with a plural noun whatever their number; new ones use :func:`rag.text.words.count_noun`."""


def _sentences(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the string constants of a module that are no docstrings, with their lines."""
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


def _checked(modules: Mapping[str, ast.Module]) -> Iterator[tuple[str, ast.Module]]:
    for path, tree in modules.items():
        if path.startswith(CHECKED) and path not in LANGUAGE_MODULES:
            yield path, tree


def test_sentences_for_users_have_no_private_phrases(modules: Mapping[str, ast.Module]) -> None:
    wrong = [
        f"{path}:{line}: {match[0]!r} in {text[:80]!r}"
        for path, tree in _checked(modules)
        for line, text in _sentences(tree)
        if " " in text.strip() and (match := _PRIVATE.search(text))
    ]
    assert not wrong, "\n".join(wrong)


def test_pages_have_no_private_phrases(root: Path) -> None:
    pages = [
        *(root / "advisor" / "templates").glob("*.j2"),
        root / "runners" / "serving" / "http" / "ask.html",
        root / "runners" / "serving" / "label_page" / "label.html",
    ]
    wrong = [
        f"{page.name}: {match[0]!r}" for page in pages for match in _PRIVATE.finditer(page.read_text("utf-8"))
    ]
    assert not wrong, "\n".join(wrong)


def test_new_counts_agree_with_their_nouns(modules: Mapping[str, ast.Module]) -> None:
    counts = 0
    for _, tree in _checked(modules):
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                for number, words in zip(node.values, node.values[1:], strict=False):
                    if isinstance(number, ast.FormattedValue) and isinstance(words, ast.Constant):
                        counts += bool(_COUNTED.match(str(words.value)))
    assert counts <= MAX_PLAIN_COUNTS, "print a count with rag.text.words.count_noun"
