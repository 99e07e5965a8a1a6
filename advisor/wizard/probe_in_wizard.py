"""The probe of the base model within the wizard: what it costs, what it would download, and running it."""

from __future__ import annotations

from advisor.drafting.embedder_choice import choose_embedder
from advisor.probe.offer import offer_probe_of, offer_where_it_decides
from advisor.questionnaire.answers import Answers
from advisor.questionnaire.gather import complete_situation
from advisor.questionnaire.probe_facts import ProbeFacts
from advisor.questionnaire.profile import Profile
from advisor.recommendation.recommend import BaseRecommendation
from runners.catalog import models
from runners.models import resolve


def offer_probe(profile: Profile) -> tuple[str, ...]:
    """Return the line of the review's menu; none unless questions are given with documents or examples.

    A probe of an endpoint sends data and may cost money, so it is not offered: it must be asked for with ``tunewise probe``.
    """
    if not profile.questions or not (profile.documents or profile.examples) or profile.remote:
        return ()
    minutes = offer_probe_of(profile).minutes
    again = "first" if profile.probe == ProbeFacts() else "again"
    return (f"measure {again}: ask the base model some of my questions (about {minutes} min)",)


def measure_first_line(recommendation: BaseRecommendation) -> str:
    """Return the review's line on what a probe costs and decides; "" where it decides nothing, or is not offered."""
    offer = offer_where_it_decides(recommendation)
    return f"{offer.text}: choose measure first" if offer and offer_probe(recommendation.profile) else ""


def probe_downloads(answers: Answers) -> str:
    """Return what a probe would download first, "" for nothing."""
    embedder = choose_embedder(complete_situation(answers).profile).name
    downloads = resolve.downloads_needed([answers.value("model") or models.DEFAULT_MODEL, embedder])
    return "; ".join(fetch.text for fetch in downloads)


def probe_question(answers: Answers) -> str:
    """Return the question whether to probe, with its minutes and the downloads it would need first."""
    minutes = offer_probe_of(complete_situation(answers).profile).minutes
    question = f"Let the base model answer some of your questions now? About {minutes} min; nothing is built or sent."
    texts = probe_downloads(answers)
    return f"{question} It first fetches {texts}." if texts else question


def probe_in_wizard(answers: Answers) -> Answers:
    """Probe, print the result, write it as ``probe.yaml``, and return the answers with those that it settled.

    Ctrl-C ends the probe, keeps its replies so far, and returns to the wizard without it.
    """
    from advisor.probe.probe_view import PROBE_OUT, probe_with_progress, show_probe, write_probe_answers

    try:
        outcome = probe_with_progress(answers)
    except KeyboardInterrupt as stop:
        if type(stop) is not KeyboardInterrupt:  # SIGTERM ends the wizard too
            raise
        print(
            "\nthe measurement was stopped; its answers so far are saved, and it continues from them when started again"
        )
        return answers
    write_probe_answers(outcome, PROBE_OUT)
    show_probe(outcome)
    print(f"the answers so far, with what was measured, are saved in {PROBE_OUT}")
    return outcome.answers
