"""The advisor: questionnaire, profile, rules, recommendation, plan, verdict and report.

Public names are imported on first use, so that ``import advisor`` loads no heavy library. From answers to a
verdict:

>>> import advisor, runners
>>> situation = {"documents": "documents", "questions": "questions.jsonl", "must_cite": True, "model": MODEL}
>>> advice = advisor.recommend(situation)
>>> print(advice.choice, [flip["text"] for flip in advice.flips][:1])
rag ['hybrid, if behaviour_gap were high (now unknown)']
>>> run = runners.run(advice.plan("mine"))
>>> report = advisor.judge(run)
>>> print(report.path, report.use or "none can be used yet", sorted(arm["arm"] for arm in report.data["arms"]))
runs/mine none can be used yet ['prompting', 'rag']
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from advisor.advice import Recommendation, recommend
    from advisor.drafting.draft import draft_plan
    from advisor.report.report import Report, judge

__all__ = ["Recommendation", "Report", "draft_plan", "judge", "recommend"]


def __getattr__(name: str) -> Any:
    """Import a public name, or the version, on first use."""
    from importlib import import_module

    modules = {
        "advisor.advice": ["Recommendation", "recommend"],
        "advisor.drafting.draft": ["draft_plan"],
        "advisor.report.report": ["Report", "judge"],
        "rag.version": ["__version__"],
    }
    for module, names in modules.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'advisor' has no attribute {name!r}")
