"""Labels and stored replies: where no language model has to write anything."""

from __future__ import annotations

from advisor.evidence.claims import CLASSIFIER
from advisor.questionnaire.profile import SMALL_MODEL_B, Profile
from advisor.rules.base import Need, Rule

EMBEDDER_TOKENS = 256
"""Tokens of a text that the default embedder reads."""


class Labels(Rule):
    """Rules about labels, and about replies that are stored texts."""

    family = "labels"


class LB003(Labels):
    """Labels that take knowledge which the texts lack are better given by a language model, where it is nearly right.

    A classifier knows only what its examples say.
    Does not apply where a plain model is far off: then the labels follow rules of their own, which examples teach; or to a
    model below two billion parameters, which knows too little.
    """

    need = Need.KNOWLEDGE
    weight = 2.5
    at = {"model_params_b": (SMALL_MODEL_B,)}
    evidence = (
        "arXiv 2505.18215: tuned encoders lead where wording carries the label, language models where knowledge does",
        "arXiv 2308.10092: prompted models lead on hard tasks that demand generality",
    )

    def applies(self, profile: Profile) -> str:
        return "the labels take knowledge that the texts do not hold" if profile.knows_labels else ""


class LB004(Labels):
    """Texts longer than the embedder reads lose their end: compare features of words, which read all of it.

    A classifier compares both (`explain classifier`); a language model reads thousands of tokens.
    Does not apply to texts of up to 256 tokens, or where their length is not known.
    """

    evidence = ("all-MiniLM-L6-v2, model card: input longer than 256 word pieces is cut",)

    def applies(self, profile: Profile) -> str:
        long = profile.gives_labels and (profile.data.text_tokens or 0) > EMBEDDER_TOKENS
        return (
            f"the texts have {profile.data.text_tokens:,} tokens, and the default embedder reads {EMBEDDER_TOKENS}"
            if long
            else ""
        )


class LB005(Labels):
    """Where calls are many and a plain model is nearly right, let a classifier answer what it is sure of.

    The language model gets the rest: nearly its accuracy, at a fraction of its calls.
    Does not apply to a model below a billion parameters, which is seldom better than the classifier; or without labels.
    """

    need = Need.CASCADE
    weight = 2.5
    evidence = (
        "Chen et al., FrugalGPT, arXiv 2305.05176: a cascade matched the best model at a fraction of its price",
        "arXiv 2507.01541: encoder first, a language model for the uncertain rest, at tens of thousands of calls a day",
    )

    def applies(self, profile: Profile) -> str:
        near = profile.gives_labels and profile.behaviour_gap in ("none", "low") and not profile.tiny_model
        return (
            "many calls, and a plain model is nearly right: most are easy"
            if near and profile.high_volume
            else ""
        )


class LB006(Labels):
    """Where a reply must be one of your own texts word for word, give the reply of the most similar example, or none.

    Nothing is written anew, so nothing can be invented.
    Does not apply where replies may be worded freely.
    """

    need = Need.VERBATIM
    weight = 8.0
    evidence = ("policy: your own answer",)

    def applies(self, profile: Profile) -> str:
        return "a reply must be one of your own texts, word for word" if profile.replies_verbatim else ""


class LB007(Labels):
    """Replies that many examples share are stored texts: find the right one instead of writing it.

    Counted in the examples, where half of the replies or more are given again.
    Does not apply to labels, for which a classifier is trained.
    """

    need = Need.VERBATIM
    weight = 2.0
    evidence = (
        "Sakata et al., arXiv 1905.02851: finding the entry of an FAQ by question and by answer",
        "arXiv 2306.03411: stored answers in a product search: 95 % less latency, 71 % of rated answers liked",
    )

    def applies(self, profile: Profile) -> str:
        if not profile.repeats_replies or profile.replies_verbatim:
            return ""
        return f"{profile.data.repeated_replies:.0%} of the examples' replies are given by others too, word for word"


class LB008(Labels):
    """Where a probe measured that a classifier is clearly better than the best prompt, take the classifier.

    It was measured on training examples in cross-validation, the prompt on dev questions: the interval of the one lies above
    that of the other.
    Does not apply where no probe measured both.
    """

    need = Need.LABELS
    weight = 2.0
    evidence = (
        "Newcombe, Statistics in Medicine 1998: two shares with 95 % intervals apart differ by more than chance",
    )
    claim = CLASSIFIER

    def applies(self, profile: Profile) -> str:
        probe = profile.probe
        prompted = max(
            (share for share in (probe.passes, probe.few_shot) if share), key=lambda s: s.rate, default=None
        )
        if probe.classifier is None or prompted is None or not profile.gives_labels:
            return ""
        from rag.evaluation.statistics import WilsonShare  # numpy, which completion and most plans do without

        low = WilsonShare.of(probe.classifier.right, probe.classifier.n).low
        if low <= WilsonShare.of(prompted.right, prompted.n).high:
            return ""
        return (
            f"a classifier gives {probe.classifier.rate:.0%} of the examples their label in cross-validation, the best "
            f"prompt {prompted.rate:.0%} of the dev questions"
        )
