"""Prompts with verifiable instructions: the shipped ones, the public ones, and a broken file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rag.errors import BadInput
from runners.scoring.ifeval import SHIPPED_PROMPTS, read_prompts
from runners.trial import forgetting

ROW = {"prompt": "Say hi. No commas.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}


def test_shipped_files_have_forty_prompts_and_twelve_passages() -> None:
    shipped = read_prompts(None, 100, 0)
    assert len({p.text for p in shipped.prompts}) == len(shipped.prompts) == 40
    assert (dict(shipped.unknown), shipped.left_out) == ({}, 0)
    assert len({kind for p in shipped.prompts for kind in p.kinds}) >= 18
    assert sum(1 for _ in SHIPPED_PROMPTS.open("rb")) == 40
    assert len(forgetting.neutral_passages()) == 12
    assert all(40 <= len(text.split()) <= 80 for text in forgetting.neutral_passages())


def test_sample_depends_on_seed_not_on_file_order() -> None:
    ten = [p.id for p in read_prompts(None, 10, 0).prompts]
    assert ten == [p.id for p in read_prompts(None, 40, 0).prompts[:10]]
    assert ten != [p.id for p in read_prompts(None, 10, 1).prompts]


def test_public_ifeval_prompts_are_read_and_unknown_kind_counted(shared: Path) -> None:
    public = read_prompts(shared / "data" / "ifeval" / "test.jsonl", 1000, 0)
    assert (len(public.prompts), public.left_out) == (510, 31)
    assert public.unknown == {"language:response_language": 31}


def test_prompt_is_followed_only_with_every_instruction(tmp_path: Path) -> None:
    two = {
        **ROW,
        "instruction_id_list": ["punctuation:no_comma", "change_case:english_lowercase"],
        "kwargs": [{}, {}],
    }
    (tmp_path / "own.jsonl").write_text(json.dumps(two), "utf-8")
    (prompt,) = read_prompts(tmp_path / "own.jsonl", 5, 0).prompts
    assert prompt.followed("hi there")
    assert not prompt.followed("hi, there")
    assert not prompt.followed("Hi there")


@pytest.mark.parametrize(
    "bad",
    [
        {"prompt": "Say hi."},
        {**ROW, "kwargs": []},
        {**ROW, "prompt": " "},
        {**ROW, "instruction_id_list": ["keywords:existence"]},
        {**ROW, "instruction_id_list": ["keywords:existence"], "kwargs": [{"keywords": "hi"}]},
        {
            **ROW,
            "instruction_id_list": ["length_constraints:number_words"],
            "kwargs": [{"relation": "about"}],
        },
    ],
)
def test_broken_row_error_names_its_line(tmp_path: Path, bad: dict[str, object]) -> None:
    file = tmp_path / "own.jsonl"
    file.write_text(f"{json.dumps(ROW)}\n{json.dumps(bad)}\n", "utf-8")
    with pytest.raises(BadInput, match=r"own\.jsonl:2"):
        read_prompts(file, 5, 0)


def test_file_without_known_kind_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    file.write_text(json.dumps({**ROW, "instruction_id_list": ["poetry:rhyme"]}), "utf-8")
    with pytest.raises(BadInput, match="no prompt whose instructions"):
        read_prompts(file, 5, 0)
