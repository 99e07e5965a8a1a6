"""The embedder of a plan by the language of what it embeds: :func:`choose_embedder`."""

from __future__ import annotations

from advisor.questionnaire.profile import Profile
from runners.models.registry import MULTILINGUAL_EMBEDDER, find_known_model
from runners.plan.schema import EMBEDDER
from runners.plan.steps import PlanModel
from runners.synthesis.question_form import LANGUAGE_CODES

ENGLISH_ONLY = (
    "the model that reads passages for the gate (shared words decide instead)",
    "the adapter of questions",
    "word tables of citations and answers (other languages have few)",
    "questions made without a teacher",
)
"""Parts of a run that were made for English."""


def choose_embedder(profile: Profile, named: str | None = None, notes: list[str] | None = None) -> PlanModel:
    """Return the embedder of a plan: the named one, else by the language of the documents, without them of the examples.

    Other languages than English get the multilingual one where it was trained on them: benchmarks/LOG.md has what it finds
    more there, and that it does not find more in English.

    Args:
        profile: the situation.
        named: the embedder that the user named, None for none.
        notes: the plan's notes, to which is added why another than the usual one is taken, and what is for English only.
    """
    subject, language = "documents", profile.data.documents_language
    if not language:
        subject, language = "examples" if profile.examples else "questions", profile.data.language
    notes = [] if notes is None else notes
    foreign = bool(language and language != "en" and (profile.documents or profile.examples))
    model = named or EMBEDDER
    known = find_known_model(MULTILINGUAL_EMBEDDER)
    if foreign and not named and known and language in known.languages:
        model = MULTILINGUAL_EMBEDDER
        notes.append(
            f"the embedder is {model}, because the {subject} are in {_name(language)}: {EMBEDDER}, the usual one, was made "
            "for English (--embedder names another)"
        )
    if foreign and profile.documents:
        notes.append(f"made for English only, whatever the embedder: {'; '.join(ENGLISH_ONLY)}")
    return PlanModel(name=model)


def _name(code: str | None) -> str:
    """Return the English name of a language by its ISO 639-1 code, the code itself for one that has no name here."""
    return LANGUAGE_CODES.get(code or "", code or "")
