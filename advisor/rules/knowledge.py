"""Knowledge: where the facts of an answer should come from."""

from __future__ import annotations

import math

from advisor.evidence.claims import RETRIEVAL
from advisor.questionnaire.data_facts import HALF_HELD
from advisor.questionnaire.profile import (
    CACHED_PROMPT_TOKENS,
    LARGE_MODEL_B,
    LONG_CONTEXT_TOKENS,
    MOST_PROMPTS,
    PASSAGES_TOKENS,
    READ_BY_SMALLER_TOKENS,
    SHORT_CONTEXT_B,
    Profile,
)
from advisor.rules.base import Need, Rule

SURE_TOKENS = 64_000
"""Tokens of a prompt up to which most hosted models hold their accuracy."""
SURE_SHARE = 0.25
"""Share of an open model's context up to which it mostly holds its accuracy."""
READ_BY_ALL = 2 * PASSAGES_TOKENS
"""Tokens of documents that even a small model reads as it reads retrieved passages: hardly more than those are."""
DAYS_BETWEEN_CHANGES = {"fast": 1.0, "slow": 30.0}


class Knowledge(Rule):
    """Rules about facts."""

    family = "knowledge"


class KN001(Knowledge):
    """Facts that no model has seen are best looked up in documents.

    Training on them hardly helps and makes a model invent more: unknown facts are learnt last, if at all.
    Does not apply when the task needs no facts, or facts every model knows.
    """

    need = Need.FACTS
    weight = 3.0
    evidence = (
        "Ovadia et al., arXiv 2312.05934: retrieval beat fine-tuning on facts after the cut-off",
        "Gekhman et al., arXiv 2405.05904: unknown facts are fitted last and raise hallucination",
    )
    claim = RETRIEVAL

    def applies(self, profile: Profile) -> str:
        if profile.facts_needed == "new":
            return "the answers need facts that the model has not seen"
        return (
            "there are documents to answer from" if profile.facts_needed is None and profile.documents else ""
        )


class KN002(Knowledge):
    """An answer that must name its source needs a search in documents (RAG).

    A fine-tuned model cannot say which document a fact came from; a search index can.
    Does not apply when the one source is fixed and can be written in the prompt, or is already there.
    """

    need = Need.CITE
    weight = 3.0
    evidence = ("NehaBharti08/rag-vs-finetune, 2x2: right section 0.9 % tuned against 83.7 % retrieved",)
    claim = RETRIEVAL

    def applies(self, profile: Profile) -> str:
        cited = profile.must_cite and not profile.passages_given
        return "answers must name their source" if cited else ""


class KN003(Knowledge):
    """Facts that change are better looked up than trained.

    A fine-tuned model keeps the old fact until you train again. A search index is updated in seconds.
    Does not apply when facts change yearly or never, or when the model has seen them, they change monthly and
    nothing has been collected to look them up in.
    """

    need = Need.FRESH
    weight = 1.0
    evidence = ("Vu et al., FreshLLMs, arXiv 2310.03214: models of every size fail on fast-changing facts",)
    claim = RETRIEVAL
    at = {"corpus_tokens": (1,)}

    def applies(self, profile: Profile) -> str:
        changing = profile.facts_change in ("slow", "fast") and profile.facts_needed != "none"
        seen = profile.facts_needed == "known" and profile.facts_change == "slow"
        if seen and not profile.corpus_tokens and not profile.must_cite:
            return ""
        return "the facts change monthly or faster" if changing else ""


class KN005(Knowledge):
    """Few documents can all be put in the prompt: under about 200,000 tokens, cached by the provider.

    It needs no index and no search can miss a passage; a cached prompt costs up to 90 % less.
    Does not apply when sources must be cited, when the text changes daily (the cache is lost), when it is larger than the
    model's context, or above 32,000 tokens for a model below 30 billion parameters, which overlooks what is in the
    middle of it, or where the documents do not hold the answers.
    """

    need = Need.WHOLE
    weight = 3.0
    evidence = (
        "Anthropic, Contextual Retrieval: below about 200k tokens skip retrieval",
        "Li et al., arXiv 2407.16833: long context beat RAG where the text fits",
        "against, for smaller models: Hsieh et al., RULER, arXiv 2404.06654: most models of 6 to 9 B hold their accuracy to "
        "32,000 tokens or fewer",
    )
    meets = frozenset({Need.FACTS, Need.FRESH})
    at = {
        "corpus_tokens": (1, READ_BY_SMALLER_TOKENS + 1, CACHED_PROMPT_TOKENS + 1),
        "model_params_b": (SHORT_CONTEXT_B, LARGE_MODEL_B),
        "answers_in_documents": (HALF_HELD,),
    }

    def applies(self, profile: Profile) -> str:
        if not profile.corpus_in_prompt:
            return ""
        return f"all documents together are {profile.corpus_tokens:,} tokens and fit in a cached prompt"


class KN008(Knowledge):
    """Facts that change faster than you can train again cannot be taught to the model; look them up.

    Does not apply when you train at least as often as the facts change.
    """

    need = Need.FRESH
    weight = 1.0
    evidence = ("OpenAI, Optimizing LLM Accuracy: missing or outdated information is a retrieval problem",)
    at = {
        "can_retrain_every_days": tuple(
            math.nextafter(days, math.inf) for days in DAYS_BETWEEN_CHANGES.values()
        )
    }

    def applies(self, profile: Profile) -> str:
        every = profile.can_retrain_every_days
        if (
            every is None
            or profile.passages_given
            or profile.facts_change not in DAYS_BETWEEN_CHANGES
            or every <= DAYS_BETWEEN_CHANGES[profile.facts_change]
        ):
            return ""
        return f"the facts change faster than you can train again (every {every:g} days)"


class KN009(Knowledge):
    """Where there are documents, looking a fact up is better than relying on the model's memory.

    Models of every size remember rare facts badly, and with a search a small model can do as well as a larger one.
    Does not apply to well-known facts, or where there are no documents, or these do not hold the answers.
    """

    need = Need.FACTS
    weight = 1.0
    evidence = (
        "Xiong et al., MIRAGE, arXiv 2402.13178: retrieval lifted six models by up to 18 % on medical questions",
        "Mallen et al., arXiv 2212.10511: scaling barely helps on unpopular entities",
    )
    claim = RETRIEVAL

    at = {"corpus_tokens": (1,), "answers_in_documents": (HALF_HELD,)}

    def applies(self, profile: Profile) -> str:
        corpus = profile.facts_needed == "known" and (profile.corpus_tokens or 0) > 0
        corpus = corpus and not profile.answers_lacking
        return "there are documents to look up what the model may remember only in part" if corpus else ""


class KN010(Knowledge):
    """Where all documents fit the model's context, measure that beside a search, though a search is advised.

    Reading all of it is better than a search where the text fits; a search costs a fraction; most of their answers agree.
    Does not apply where rule KN005 advises it, above a million tokens, or without the answers in the documents; to models
    below 3 billion parameters it applies only up to about what a search would give them, since they lose the middle.
    """

    evidence = ("Li et al., arXiv 2407.16833: long context ahead of RAG, over 60 % of predictions identical",)

    at = {
        "corpus_tokens": (1, READ_BY_ALL + 1, CACHED_PROMPT_TOKENS + 1, LONG_CONTEXT_TOKENS + 1),
        "model_params_b": (SHORT_CONTEXT_B,),
        "answers_in_documents": (HALF_HELD,),
    }

    def applies(self, profile: Profile) -> str:
        tokens, left = profile.corpus_tokens or 0, profile.context_without_passages
        small = 0 < (profile.params_b or SHORT_CONTEXT_B) < SHORT_CONTEXT_B
        if profile.corpus_in_prompt or not tokens or not profile.needs_facts or profile.answers_lacking:
            return ""
        if small and tokens > READ_BY_ALL:
            return ""
        if left is not None:
            fits = f"all documents are {tokens:,} tokens, and the model's context has {left:,} left: no search can miss any"
            return fits if tokens <= left else ""
        if CACHED_PROMPT_TOKENS < tokens <= LONG_CONTEXT_TOKENS:
            return f"{tokens:,} tokens fit a model with a long context: compare that with a search first"
        return ""


class KN011(Knowledge):
    """Where the prompt already contains its passage, a search has nothing to add: the model only has to read well.

    How many prompts contain what their reply says is counted in the examples and the questions. What then decides is
    how well the model reads: instructions, examples in the prompt, fine-tuning.
    Does not apply where fewer than half of the prompts do.
    """

    evidence = (
        "OpenAI, Optimizing LLM Accuracy: retrieval is for what the context lacks, tuning for how it is used",
        "Rajpurkar et al., SQuAD, arXiv 1606.05250: the answer is a span of the paragraph that is given",
    )
    at = {"corpus_tokens": (1,)}

    def applies(self, profile: Profile) -> str:
        share = profile.data.passages_in_prompts
        if share is None or share < MOST_PROMPTS:
            return ""
        held = f"{share:.0%} of the prompts already contain what their reply is taken from"
        if profile.passages_given:
            return f"{held}: a search has nothing to add"
        return f"{held}: measure whether passages from the documents add anything"


class KN012(Knowledge):
    """A model reads passages badly in a language that it was not trained on, even if the right ones are found.

    A small embedder, too, finds such passages by their words rather than by their meaning.
    Does not apply where the languages of the model are not known.
    """

    evidence = (
        "Artetxe et al., XQuAD, arXiv 1910.11856: the same passages and questions are answered worse outside English",
        "Ahuja et al., MEGA, arXiv 2303.12528: models fall behind most on languages they saw little of",
    )

    def applies(self, profile: Profile) -> str:
        language = profile.foreign_language if profile.needs_facts else ""
        return (
            f"the texts are in a language ({language}) that the model was not trained on" if language else ""
        )


class KN013(Knowledge):
    """Documents that do not hold the answers are of no use to a search: give the ones that do, or correct the answers.

    How many right answers of the questions, else of the examples, a passage supports is counted. A search in documents
    about other things finds passages all the same, and a model that reads them is right less often than without.
    Does not apply where half of the answers may be there, where words cannot tell, or where there are no documents.
    """

    need = Need.UNWRITTEN
    weight = 4.0
    evidence = (
        "Xiong et al., MIRAGE, arXiv 2402.13178: without a search 36.0 % of PubMedQA and 74.3 % of BioASQ right, with "
        "textbooks 25.6 to 31.0 % and 55.5 to 61.3 %, with PubMed, where the answers are, 54.8 to 69.0 % and 75.7 to 88.5 %",
        "Wang et al., CodeRAG-Bench, arXiv 2406.14497: code of a repository, GPT-4o without a search 32.4 % right, with the "
        "repository 62.2 %, with tutorials, library documentation, posts or other repositories 27.8 to 29.0 %",
        "Cuconasu et al., arXiv 2401.14887: related passages without the answer lowered accuracy; against: random passages "
        "raised it by up to 35 %",
    )
    first = True
    at = {"corpus_tokens": (1,), "answers_in_documents": (HALF_HELD,)}

    def applies(self, profile: Profile) -> str:
        if not profile.answers_lacking or profile.facts_needed == "none":
            return ""
        counted = profile.data.answers
        if counted is not None and profile.answers_in_documents == counted.rate:
            return counted.lack
        return f"the documents hold {profile.answers_in_documents:.0%} of the right answers: give those that hold the rest"


class KN014(Knowledge):
    """In a long prompt the model overlooks more, above all in the middle: measure before you put all documents there.

    A loss of 20 points in the middle was measured on a model of 2023; newer hosted models lose little by position, but all
    lose with length, most where a question shares no words with its passage.
    Does not apply up to 64,000 tokens for hosted models, or to a quarter of an open model's context.
    """

    evidence = (
        "Liu et al., Lost in the Middle, arXiv 2307.03172: GPT-3.5-Turbo, 20 documents, the right one first 75.8 %, in the "
        "middle 53.8 %, last 63.2 %; Claude-1.3 between 55.9 and 60.1 % at every place (from notes on the paper)",
        "Hsieh et al., RULER, arXiv 2404.06654: from 32,000 to 128,000 tokens Llama 3.1 70B 94.8 to 66.6, 8B 87.4 to 77.0, "
        "GPT-4-1106 93.2 to 81.2, Gemini 1.5 Pro 95.9 to 94.4",
        "Modarressi et al., NoLiMa, arXiv 2502.05167: without shared words 10 of 12 models reach less than half of their "
        "short score at 32,000 tokens",
        "Leng et al., arXiv 2411.03538: only a handful of models keep their accuracy above 64,000 tokens",
    )
    at = {"corpus_tokens": (SURE_TOKENS + 1,)}

    def applies(self, profile: Profile) -> str:
        tokens = profile.corpus_tokens or 0
        facts = profile.model_facts
        most = SURE_TOKENS if facts is None else int(SURE_SHARE * facts.context)
        if tokens <= most or not (KN005().applies(profile) or KN010().applies(profile)):
            return ""
        what = "a quarter of the model's context" if facts else "up to which most models hold their accuracy"
        return f"all documents are {tokens:,} tokens, more than the {most:,} ({what}): the middle may be overlooked"
