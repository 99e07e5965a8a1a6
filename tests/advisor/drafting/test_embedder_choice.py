"""The embedder of a plan fits the language of what it embeds, and what reads English only is named once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from advisor.drafting.draft import DraftedPlan, draft_with_notes
from advisor.questionnaire.gather import complete_situation, flag_answers
from advisor.recommendation.recommend import recommend_for_profile
from runners.models.registry import MULTILINGUAL_EMBEDDER
from runners.plan.schema import EMBEDDER
from runners.resources.machine import Machine

TEXTS = {
    "es": (
        "El transbordador sale del puerto a las {n} de la mañana y vuelve antes del mediodía, pero no los domingos.",
        "¿A qué hora sale el barco número {n} del puerto?",
    ),
    "en": (
        "The ferry leaves the harbour at {n} in the morning and returns before noon, but not on Sundays.",
        "When does boat number {n} leave the harbour?",
    ),
    "ja": (
        "フェリーは朝{n}時に港を出発し、正午前に戻ります。日曜日は運休です。",
        "船{n}号は何時に港を出ますか。",
    ),
}


def drafted(
    folder: Path, laptop: Machine, documents: str = "", examples: str = "", embedder: str | None = None
) -> DraftedPlan:
    """Draft a plan for files in the given languages, "" for none."""
    files = {}
    if documents:
        (folder / "documents").mkdir()
        for n in range(1, 6):
            text = TEXTS[documents][0].format(n=n)
            (folder / "documents" / f"{n}.md").write_text(f"{text}\n", "utf-8")
        files["documents"] = folder / "documents"
    if examples:
        reply, prompt = TEXTS[examples]
        rows = [{"prompt": prompt.format(n=n), "completion": reply.format(n=n)} for n in range(10, 40)]
        files["examples"] = folder / "examples.jsonl"
        files["examples"].write_text("\n".join(map(json.dumps, rows)), "utf-8")
    situation = complete_situation(flag_answers((), **files), laptop)
    return draft_with_notes(recommend_for_profile(situation.profile), situation, folder, embedder)


@pytest.mark.parametrize(
    ("documents", "examples", "chosen", "reason"),
    [
        ("es", "", MULTILINGUAL_EMBEDDER, "because the documents are in Spanish"),
        ("ja", "en", MULTILINGUAL_EMBEDDER, "because the documents are in Japanese"),
        ("", "es", MULTILINGUAL_EMBEDDER, "because the examples are in Spanish"),
        ("en", "es", EMBEDDER, ""),
        ("en", "", EMBEDDER, ""),
        ("", "en", EMBEDDER, ""),
    ],
)
def test_embedder_follows_the_language(
    tmp_path: Path, laptop: Machine, documents: str, examples: str, chosen: str, reason: str
) -> None:
    draft = drafted(tmp_path, laptop, documents, examples)
    assert draft.plan.embedder.name == chosen
    notes = [note for note in draft.notes if note.startswith("the embedder is")]
    assert [reason in note for note in notes] == ([True] if reason else [])
    english = [note for note in draft.notes if note.startswith("made for English only")]
    assert len(english) == (documents not in ("", "en")), "once, and only where something is retrieved"


def test_named_embedder_stays(tmp_path: Path, laptop: Machine) -> None:
    draft = drafted(tmp_path, laptop, "es", embedder=EMBEDDER)
    assert draft.plan.embedder.name == EMBEDDER
    assert not any(note.startswith("the embedder is") for note in draft.notes)
    assert any("shared words decide" in note for note in draft.notes)
