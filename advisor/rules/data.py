"""Data: what the amount of examples and text allows."""

from __future__ import annotations

from advisor.evidence.claims import READING, SHOWING
from advisor.questionnaire.data_facts import HALF_HELD
from advisor.questionnaire.profile import (
    READING_EXAMPLES,
    TINY_MODEL_B,
    Profile,
)
from advisor.rules.base import Need, Rule
from rag.text.words import count_noun

ADAPTER_CAPACITY_TOKENS = 1_000_000_000


class Data(Rule):
    """Rules about examples and raw text."""

    family = "data"


class DA001(Data):
    """With fewer than 50 examples, show them; do not train on them.

    Fine-tuning begins to help at 50-100 examples; a few are worth more in the prompt.
    Does not apply once more examples can be had cheaply.
    """

    need = Need.SPARING
    weight = 3.0
    evidence = (
        "OpenAI, fine-tuning guide: at least 10 examples, gains at 50-100",
        "DSPy, optimizers guide: about 10 examples are for few-shot bootstrapping",
    )
    claim = SHOWING
    at = {"labelled_examples": (1, 50)}

    def applies(self, profile: Profile) -> str:
        n = profile.labelled_examples
        return (
            f"{count_noun(n, 'example')} to train on: that is too few" if n is not None and 0 < n < 50 else ""
        )


class DA002(Data):
    """50 to 200 examples teach a tone, hardly a skill: where the style is nearly right, try them in the prompt first.

    Does not apply when there are many calls, so that the shorter prompt of a fine-tuned model pays for the training; when
    no prompt has achieved the style (then even 50 examples are better for training); for a model below a billion
    parameters, which hardly uses examples in the prompt; when new facts or sources are missing, which examples do not
    bring; or when fewer than eight fit into the model's context.
    """

    need = Need.SHOW
    weight = 2.0
    evidence = (
        "Bertsch et al., arXiv 2405.00200: in context, examples go further until there are many",
        "Predibase, distillation playbook: useful training sets begin at 300-800 rows",
    )
    claim = SHOWING
    at = {"labelled_examples": (50, 200), "corpus_tokens": (1,), "model_params_b": (TINY_MODEL_B,)}

    def applies(self, profile: Profile) -> str:
        few = (
            50 <= profile.examples_known < 200
            and not profile.high_volume
            and profile.behaviour_gap in (None, "low")
            and not profile.tiny_model
        )
        if not few or _to_look_up(profile) or profile.no_room_for_examples:
            return ""
        return f"{profile.examples_known} examples teach a tone at most, and fit in a prompt"


class DA007(Data):
    """Billions of tokens of raw text are too much for a LoRA adapter: train all weights on them.

    Does not apply below about a billion tokens, where what the text says changes daily (no pre-training keeps up), or where
    a plain model nearly answers as wanted: there domain models seldom do better than the general ones they came from.
    """

    need = Need.CAPACITY
    weight = 4.0
    evidence = (
        "Biderman et al., arXiv 2405.09673: LoRA lags on 20B tokens of code, even at rank 256",
        "against, where the gap is small: Jeong et al., arXiv 2411.04118: of medical models few beat their base",
    )
    at = {"unlabelled_tokens": (ADAPTER_CAPACITY_TOKENS,)}

    def applies(self, profile: Profile) -> str:
        far = profile.behaviour_gap not in ("none", "low")
        some = profile.raw_text >= ADAPTER_CAPACITY_TOKENS and far and not _news(profile)
        return f"{profile.raw_text:,} tokens of raw text to train on" if some else ""


class DA010(Data):
    """With too few examples, let a larger model write some, check a sample of them, and train on those.

    A model of a few billion parameters comes near the larger one on a narrow task, at a fraction of the price.
    Does not apply where data must stay local, or where the larger model cannot do the task either.
    """

    evidence = (
        "Predibase, distillation playbook: train on growing shares before buying more labels",
        "Marquardt & Brule, arXiv 2507.04889: simulated examples taught a tone that prompts did not",
    )

    at = {"labelled_examples": (200,)}

    def applies(self, profile: Profile) -> str:
        allowed = not profile.data_must_stay_local and profile.hosted_api_allowed is not False
        few = profile.labelled_examples is not None and profile.labelled_examples < 200
        if not (allowed and few and profile.behaviour_gap == "high"):
            return ""
        few_or_none = (
            f"{count_noun(profile.labelled_examples, 'example')} to train on: that is few"
            if profile.labelled_examples
            else "there are no examples"
        )
        return f"{few_or_none}: a larger model could write more; check a sample of them"


class DA014(Data):
    """A model below a billion parameters answers badly from search results until it is trained on examples with them.

    A hundred examples with their passages are a beginning.
    Does not apply to larger models, where no new facts are needed, where the style needs no change, or where the documents
    do not hold the answers.
    """

    need = Need.READING
    weight = 2.0
    evidence = (
        "Zhang et al., RAFT, arXiv 2403.10131: rows with distractors lifted every data set over plain RAG",
    )
    claim = READING
    at = {
        "labelled_examples": (READING_EXAMPLES,),
        "model_params_b": (TINY_MODEL_B,),
        "corpus_tokens": (1,),
        "answers_in_documents": (HALF_HELD,),
    }

    def applies(self, profile: Profile) -> str:
        if not profile.can_learn_to_read or profile.answers_lacking:
            return ""
        return (
            f"a model of {profile.params_b:.2g} billion parameters has to be taught to read search results, and there are "
            f"{profile.examples_known:,} examples"
        )


class DA012(Data):
    """With few examples of each label, show the nearest ones in the prompt; do not train on them.

    Few are fewer than five of each, or up to ten of each of fifty labels and more: 231 examples of 77 labels are 3 of each.
    Does not apply with more examples of a label, when fewer than eight fit into the model's context, or for a model below a
    billion parameters, which hardly uses them.
    """

    need = Need.SHOW
    weight = 2.5
    at = {"model_params_b": (TINY_MODEL_B,)}
    evidence = (
        "Sun et al., arXiv 2305.08377: 16 texts a class, the nearest shown with reasons, level with 1,024 trained on",
        "Ma et al., arXiv 2303.08559: with one example per class the prompted model wins, with five to ten it is a tie",
    )
    claim = SHOWING

    def applies(self, profile: Profile) -> str:
        useless = profile.no_room_for_examples or profile.tiny_model
        if not profile.few_per_label or not profile.behaviour_needed or useless:
            return ""
        rows = profile.rows_per_label or 0
        labels = f"{profile.labels} labels with about {rows:,.0f} examples each"
        return f"{labels}: too few to train on; show them in the prompt"


class DA013(Data):
    """Where there are texts but no examples, examples can be made from them.

    A larger model writes a question and an answer for each passage, or labels texts that you have; a person checks a
    sample, and a filter drops answers that the passage does not support.
    Does not apply where there are examples, or where the style need not change.
    """

    evidence = (
        "Wang et al., Self-Instruct, arXiv 2212.10560: generated examples, filtered, taught a model to follow instructions",
        "Dai et al., Promptagator, arXiv 2209.11755: questions generated from passages, eight real ones as a pattern",
    )
    at = {"labelled_examples": (1,), "corpus_tokens": (1,), "unlabelled_tokens": (1,)}

    def applies(self, profile: Profile) -> str:
        texts = bool(profile.corpus_tokens or profile.documents or profile.raw_text)
        if (
            profile.examples_known
            or profile.examples
            or not texts
            or profile.behaviour_gap not in ("low", "high")
        ):
            return ""
        return "there are no examples, but texts to make them from: let a larger model write some, and check a sample"


def _to_look_up(profile: Profile) -> bool:
    """Whether the task turns on what documents hold: new facts, sources to name, a corpus to read in."""
    cited = bool(profile.must_cite) and not profile.passages_given
    return cited or (profile.needs_facts and (profile.facts_needed != "known" or bool(profile.corpus_tokens)))


def _news(profile: Profile) -> bool:
    return profile.needs_facts and profile.facts_change == "fast"
