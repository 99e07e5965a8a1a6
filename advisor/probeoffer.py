"""The wizard's offer to measure the base model before it advises."""

from __future__ import annotations

from advisor.answers import Answers
from advisor.profile import Profile

TEXT = "Ask the base model some dev questions now? It takes about two minutes; nothing is built or sent."


def offer(profile: Profile) -> tuple[str, ...]:
    """Return the line of the review's menu: only where questions are given with documents or examples.

    An endpoint is not offered: asking it sends data and may cost money, so `tunewise probe` is asked for by name.
    """
    if not profile.questions or not (profile.documents or profile.examples) or profile.remote:
        return ()
    return ("measure first: ask the base model some of my questions",)


def text(answers: Answers) -> str:
    """Return the question, with what the probe would fetch first where base model or embedder are not here yet."""
    from advisor.facts import models
    from runners import fetching
    from runners.plan import EMBEDDER

    model = answers["model"].value if "model" in answers else None
    found = fetching.needed([model or models.DEFAULT, EMBEDDER])
    told = "; ".join(fetch.text for fetch in found)
    return f"{TEXT} It first fetches {told}." if told else TEXT


def carry_out(answers: Answers) -> Answers:
    """Probe, print what was found, keep it as ``probe.yaml``, and return the answers with what it settled.

    Ctrl-C ends the probe and keeps its answers so far, and the wizard goes on without it.
    """
    from advisor.probeview import DEFAULT_OUT, measure, show, write

    try:
        found = measure(answers)
    except KeyboardInterrupt as stop:
        if type(stop) is not KeyboardInterrupt:  # SIGTERM ends the wizard too
            raise
        print(
            "\nthe probe was stopped; its answers so far are kept, and it goes on from them when started again"
        )
        return answers
    write(found, DEFAULT_OUT)
    show(found)
    return found.answers
