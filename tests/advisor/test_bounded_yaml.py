"""YAML from somebody else: what a few hundred bytes of aliases expand to, and depth, are limited."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from advisor.catalog.prices import find_price
from advisor.completion import complete_arms
from advisor.questionnaire.answers_files import read_answers
from rag.errors import BadInput
from rag.loading.metadata import front_matter
from rag.text.bounded_yaml import MAX_DEPTH, load_yaml
from runners.catalog.user_catalog import CATALOG_VARIABLE
from runners.plan.plan_source import read_source
from runners.plan.schema import read_plan

LISTS = "l0: &l0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 8)
)
MERGED = "m0: &m0 {a: 1, b: 1}\n" + "".join(
    f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 9)}]}}\n" for n in range(1, 9)
)
LONG = f"text: &text {'long ' * 20_000}\nall: [{', '.join(['*text'] * 400)}]\n"
DEEP = f"deep: {'[' * 900}{']' * 900}\n"
ENDLESS = "first: &first [*first]\n"
HOSTILE = pytest.mark.parametrize(
    "text", [LISTS, MERGED, LONG, DEEP, ENDLESS], ids=["lists", "merged", "long", "deep", "endless"]
)


@HOSTILE
def test_what_expands_too_much_is_no_yaml(text: str) -> None:
    with pytest.raises(yaml.YAMLError, match=r"aliases repeat|levels|inside of what it names"):
        load_yaml(text)


@HOSTILE
def test_every_file_of_yaml_is_read_so(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file.yaml"
    file.write_text(text, "utf-8")
    monkeypatch.setenv(CATALOG_VARIABLE, str(file))
    readers: tuple[Callable[[], Any], ...] = (
        lambda: read_plan(file),
        lambda: read_answers(file),
        lambda: find_price("tern-2"),
    )
    for read in readers:
        with pytest.raises(BadInput, match=r"file\.yaml"):
            read()
    assert front_matter(f"---\n{text}---\nText") == ({}, 0)
    (tmp_path / "plan.yaml").write_text(f"steps: []\n{text}", "utf-8")
    (tmp_path / "events.jsonl").touch()
    monkeypatch.setenv("COMP_WORDS", f"tunewise ask {tmp_path} --arm ")
    assert complete_arms("") == []


def test_usual_aliases_and_depth_are_read() -> None:
    text = "base: &base {k: 5, words: &w one}\nother: *base\nmerged: {<<: *base, k: 6}\nagain: *w\n"
    assert load_yaml(text) == yaml.safe_load(text)
    assert load_yaml("") is None
    levels = MAX_DEPTH - 1
    assert load_yaml("[" * levels + "]" * levels) == yaml.safe_load("[" * levels + "]" * levels)
    with pytest.raises(yaml.YAMLError, match="aliases are not allowed"):
        load_yaml(text, aliases=False)
    with pytest.raises(BadInput, match="is not YAML"):
        read_source("day: 2026-02-31\n", "plan.yaml")
