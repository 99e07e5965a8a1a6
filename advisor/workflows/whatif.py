"""The work behind ``tunewise whatif``: the recommendation before and after changed answers."""

from __future__ import annotations

from advisor import output
from advisor.advice import ModelsRecommendation, recommend
from advisor.display import console
from advisor.probe import answers_from_probe
from advisor.questionnaire.answers import Answers
from advisor.questionnaire.gather import flag_answers, refuse_unknown_model
from advisor.recommendation.recommend import BaseRecommendation
from advisor.workflows import models_view


def recommend_after_change(
    answers: Answers, changes: tuple[str, ...]
) -> tuple[BaseRecommendation, BaseRecommendation]:
    """Return the recommendation before and after changes (``key=value``) to the answers of a plan."""
    before = recommend(answers)
    changed = answers
    for key, answer in flag_answers(changes).layers["flag"].items():
        changed = changed.drop("file", [key]).add("flag", {key: answer})
    refuse_unknown_model(changed)
    changed, line = answers_from_probe.answers_of_this_model(changed)
    if line:
        output.note(line)
    return before, recommend(changed)


def show_change(before: BaseRecommendation, after: BaseRecommendation, change: str) -> None:
    """Print the effect of a change; of several models that for each, and which arms would be measured."""
    screen = console.console()
    if isinstance(before, ModelsRecommendation) and isinstance(after, ModelsRecommendation):
        screen.print(models_view.render_models_difference(before, after, change))
    else:
        screen.print(console.render_difference(before, after, change))
