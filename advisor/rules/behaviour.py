"""Behaviour: tone, format and skill."""

from __future__ import annotations

from advisor.evidence.claims import CLASSIFIER, EXAMPLES_IN_PROMPT, TUNING
from advisor.questionnaire.profile import (
    MIN_LABELLED,
    MIN_PER_LABEL,
    Profile,
)
from advisor.rules.base import Need, Rule

PASSING_RATE = 0.8


class Behaviour(Rule):
    """Rules about how the model answers."""

    family = "behaviour"


class BE001(Behaviour):
    """Fine-tuning teaches a tone, format or skill that a prompt does not achieve.

    With a prompt 23-46 % of replies had the wanted tone, after training on 100 examples over 95 %; skills rise likewise.
    Does not apply when what is missing is information.
    """

    need = Need.STYLE
    weight = 2.0
    evidence = (
        "Marquardt & Brule, arXiv 2507.04889: tone 23-46 % prompted, over 95 % tuned on 100 samples",
        "Microsoft Learn, When to use fine-tuning: tune to change the model, retrieve to change the context",
    )
    claim = TUNING

    def applies(self, profile: Profile) -> str:
        return (
            "a plain model is far from the tone, format or skill that is needed"
            if profile.behaviour_gap == "high"
            else ""
        )


class BE003(Behaviour):
    """Stop when a prompt is good enough: if 8 of 10 real cases are good, build nothing else.

    Does not apply when the rest must be right too, or sources must be cited.
    """

    need = Need.STOP
    weight = 6.0
    evidence = ("Manning, Building Reliable AI Systems, ch. 5: try 10 real examples, stop if 8 pass",)
    at = {"prompting_pass_rate": (PASSING_RATE,)}

    def applies(self, profile: Profile) -> str:
        rate = profile.prompting_pass_rate
        if rate is None or rate < PASSING_RATE or profile.must_cite or profile.wrong_answer_cost == "high":
            return ""
        return f"{rate:.0%} of answers are already good with the best prompt"


class BE004(Behaviour):
    """Fine-tuned models keep to a strict output format best, examples in the prompt come next.

    Does not apply when a plain model already keeps to it, or when only answers in the format can be generated.
    """

    need = Need.FORMAT
    weight = 0.7
    evidence = ("LoRA Land, arXiv 2405.00732: small tuned models win on narrow, fixed-form tasks",)
    claim = TUNING

    def applies(self, profile: Profile) -> str:
        strict = profile.output_format in ("labels", "json", "fixed") and profile.behaviour_needed
        return f"the output must be {profile.output_format}" if strict else ""


class BE006(Behaviour):
    """Where "not stated" is a right answer, fine-tuning can do harm: fine-tuned models tend to answer always.

    Does not apply when enough of the examples are honest refusals and the harm is measured.
    """

    need = Need.HONESTY
    weight = 1.5
    evidence = (
        "HORUS thesis on invoice fields: LoRA lost .023 F1 and invented more values",
        "NehaBharti08/rag-vs-finetune: refusals fell threefold after tuning",
    )

    def applies(self, profile: Profile) -> str:
        return '"not stated" is sometimes the right answer' if profile.absence_is_legal else ""


class BE007(Behaviour):
    """If the best prompt gets fewer than 8 of 10 right, on a task without facts, fine-tuning is worth trying.

    A better prompt is then unlikely to help; a probe that showed examples counts as such a prompt.
    Does not apply before prompts were tried seriously (with examples, or an optimiser).
    """

    need = Need.STYLE
    weight = 2.0
    evidence = (
        "Soylu et al., BetterTogether, arXiv 2407.10930: tuning adds to an optimised prompt",
        "Manning, Building Reliable AI Systems, ch. 5: continue where fewer than 8 of 10 pass",
    )
    claim = TUNING
    at = {"prompting_pass_rate": (PASSING_RATE,)}

    def applies(self, profile: Profile) -> str:
        rate = profile.best_prompt_rate
        if rate is None or rate >= PASSING_RATE or profile.needs_facts:
            return ""
        return f"with the best prompt only {rate:.0%} of answers are good"


class BE009(Behaviour):
    """Labels can also be chosen by a linear classifier over embeddings, which trains in seconds.

    So a plan with labelled examples measures it, whatever is recommended.
    Does not apply with fewer than 20 examples, too few to fit or to judge one, or fewer than two of a label.
    """

    evidence = (
        "docs/accuracy.md: banking77, 770 examples, .81 right against .65 of a 135M model tuned in full",
        "Casanueva et al., arXiv 2003.04807: heads over sentence encoders for 77 intents, 10 examples each",
    )
    claim = CLASSIFIER
    at = {"labelled_examples": (MIN_LABELLED,)}

    def applies(self, profile: Profile) -> str:
        labels, rows = profile.labels, profile.rows_per_label
        few = profile.examples_known < MIN_LABELLED or (rows is not None and rows < MIN_PER_LABEL)
        if not profile.gives_labels or few:
            return ""
        if labels is None or rows is None:
            return "a linear classifier over embeddings may choose labels as well, and trains in seconds: measure it"
        return f"{labels} labels with about {rows:,.0f} examples each: a linear classifier learns them in seconds"


class BE012(Behaviour):
    """A model that thinks before it answers: describe the task and let it think; its thoughts cost time on every call.

    Examples in the prompt may lower its results, and training on bare replies teaches it not to think. Plans switch thinking
    off where the model's template allows it.
    Does not apply to models that answer at once.
    """

    evidence = (
        "DeepSeek-AI, DeepSeek-R1, arXiv 2501.12948: few-shot prompting consistently lowered its results",
    )

    def applies(self, profile: Profile) -> str:
        if profile.model_kind != "thinking" or profile.model_facts is None:
            return ""
        if profile.model_facts.reasons == "switch":
            return "the model can think before it answers; plans switch that off: measure both where answers must be right"
        return "the model thinks before it answers: examples in the prompt may lower its results, measure without them too"


class BE014(Behaviour):
    """Where a probe measured that examples in the prompt help, show them before anything is trained.

    They cost nothing to build, and what helps on a few dozen dev questions helps in use as well.
    Does not apply where no probe asked with and without examples, or where the difference may be chance.
    """

    need = Need.SHOW
    weight = 1.0
    evidence = (
        "Brown et al., arXiv 2005.14165: some examples in the prompt teach a task without any training",
        "Soylu et al., BetterTogether, arXiv 2407.10930: most of the gain comes from the prompt step",
    )
    claim = EXAMPLES_IN_PROMPT

    def applies(self, profile: Profile) -> str:
        probe = profile.probe
        if not probe.examples_help or probe.few_shot is None or probe.passes is None or profile.needs_facts:
            return ""
        return (
            f"with examples in the prompt {probe.few_shot.rate:.0%} of answers to dev questions are good, "
            f"without them {probe.passes.rate:.0%}"
        )
