"""Search by the model itself: where it finds more than one search, and where it does not.

Rules look only at comparisons with a search or with a long prompt. Two much quoted ones, arXiv 2605.05242 (69 to 80 % on
BrowseComp-Plus) and 2605.15184 (grep against vectors), compare tools of a model that searches by itself in both arms: they
say which tools to give it, not whether to let it search. Measured by us is a model of 1.5 billion parameters alone: there it
is rag with more tokens.
"""

from __future__ import annotations

from advisor.questionnaire.profile import CACHED_PROMPT_TOKENS, LARGE_MODEL_B, LOW_VOLUME, Profile
from advisor.rules.base import Need, Rule
from advisor.rules.knowledge import READ_BY_ALL
from runners.catalog.abilities import gained_nothing, hosted_takes_tools

NOT_MEASURED = "agentic-search is not measured by us with a strong model: one of 1.5 billion parameters answered as rag does"
"""What every advice says that names it, until a strong model has been measured."""
MOST_LOOKED_UP_TOKENS = 500_000_000
"""Tokens of documents, about 100,000 long ones, above which a model that searches by itself was slow and wrong."""


class Agentic(Rule):
    """Rules about models that search by themselves."""

    family = "agentic search"


def takes_tools(profile: Profile) -> bool | None:
    """Return whether the model calls tools: as answered, else by the catalogue or its maker's guides; None where unknown."""
    if profile.model_calls_tools is not None or not profile.model:
        return profile.model_calls_tools
    known = profile.model_facts.tools if profile.model_facts else None
    return hosted_takes_tools(profile.hosted_name) if known is None and profile.remote else known


def searching_size_b(profile: Profile) -> float | None:
    """Return the billions of parameters of the model, behind an endpoint too; None where they are not known."""
    return profile.model_facts.params_b if profile.model_facts else profile.params_b


def looks_up_well(profile: Profile) -> bool:
    """Return whether the model calls tools and is strong enough for rules to speak for it.

    That is from 30 billion parameters on, or of unknown size where it is hosted or tools are answered with yes, without a
    comparison that saw no gain.
    """
    size = searching_size_b(profile)
    trusted = profile.remote or profile.model_calls_tools is True
    strong = trusted if size is None else size >= LARGE_MODEL_B
    return bool(
        takes_tools(profile) and strong and not (profile.remote and gained_nothing(profile.hosted_name))
    )


def _can_be_searched(profile: Profile) -> bool:
    """Return whether there may be documents with the answers, not too many, and a model that looks them up well."""
    few = (profile.corpus_tokens or 1) <= MOST_LOOKED_UP_TOKENS and profile.corpus_tokens != 0
    return few and profile.needs_facts and not profile.answers_lacking and looks_up_well(profile)


class AG001(Agentic):
    """Where an answer puts together what stands in several places, a strong model finds more by searching itself.

    It reads what it found, and searches again for what is missing. It takes several calls an answer: 3 to 12 times the price
    of one search and 10 to 60 seconds in published runs, and 50 times in one.
    Does not apply to single facts, where it was mostly not better, with many calls, above about 100,000 long documents, or
    to models that call no tools, have fewer than 30 billion parameters, or were shown to gain nothing.
    """

    need = Need.LOOKUPS
    weight = 1.5
    evidence = (
        "HERB, arXiv 2506.23139: 1,514 questions over a firm's messages and documents, GPT-4o in a loop 33.0, the best "
        "single search 20.6 (from a summary)",
        "arXiv 2602.23368: FinanceBench by keyword tools 32.7 % right, by one search 24.2 % (from notes)",
        "PIKE-RAG, results of its examples: MuSiQue, 500 questions, one search 28.7 exact match, asking step by step 41.5; "
        "HotpotQA 55.0 and 59.3, but 45.1 by a plain loop",
        "GraphReader, arXiv 2406.14550: several facts in 128,000 tokens, GPT-4 walking through the text 28.0, the best "
        "search and the whole text 16.0, another reading agent 14.0 (from a copy)",
        "Jin et al., Search-R1, arXiv 2503.09516: a 7 B model trained to search .431 exact match, one search .304",
        "against: HippoRAG, arXiv 2405.14831: one search over a graph of the passages as good as several, 10 to 30 times "
        "cheaper (abstract)",
        "against, for single facts: Search-o1, arXiv 2501.05366: 47.8 and 47.6; RAGBench-12x: .845 and .852, twice the time",
        "against, for vague questions: arXiv 2601.07711: a search with a reranker .495, the model's own .439 (NDCG@10)",
    )
    at = {
        "corpus_tokens": (1, MOST_LOOKED_UP_TOKENS + 1),
        "model_params_b": (LARGE_MODEL_B,),
    }

    def applies(self, profile: Profile) -> str:
        several = profile.question_kind == "several" and not profile.high_volume
        if not several or not _can_be_searched(profile):
            return ""
        return "answers put together facts from several places, and the model can search again for what is missing"


class AG002(Agentic):
    """Few documents that change daily need no index: a strong model that calls tools reads them as they are, at few calls.

    Quality was the same as with a search where both were compared on a few dozen documents, at a price that few calls make
    bearable. A cached prompt is lost with each change, an index has to follow it.
    Does not apply above 200,000 tokens, to so few that one search gives nearly all of them, from 3,000 calls a month on or
    where their number is unknown, to single facts, vague questions or counting, or to models that rule AG001 leaves out.
    """

    need = Need.LOOKUPS
    weight = 1.0
    evidence = (
        "curasinan/pdf-rag, ABLATION_WRITEUP.md: 24 documents of 74,000 tokens, 25 questions, Claude Opus: files by tools "
        "25 right for 0.154 USD each in 27 s, all in the prompt 24 for 1.237, a search 23 for 0.229 (a tie at 25 questions)",
        "MODSetter/SurfSense: 171 questions on long PDFs, Claude Sonnet 4.5: by tools 53.2 % for 0.083 USD in 53 s, the "
        "whole document 59.6 % for 0.19 in 7 s (not significant)",
    )
    at = {
        "corpus_tokens": (READ_BY_ALL + 1, CACHED_PROMPT_TOKENS + 1),
        "model_params_b": (LARGE_MODEL_B,),
        "calls_per_month": (LOW_VOLUME,),
    }

    def applies(self, profile: Profile) -> str:
        few = READ_BY_ALL < (profile.corpus_tokens or 0) <= CACHED_PROMPT_TOKENS
        rarely = profile.low_volume and profile.facts_change == "fast"
        if not few or not rarely or profile.question_kind in ("single", "vague", "counting"):
            return ""
        if not _can_be_searched(profile):
            return ""
        return f"{profile.corpus_tokens:,} tokens of documents that change daily, and few calls: no index has to follow them"


class AG003(Agentic):
    """Counting over many documents needs a query language: neither a search nor a model that reads does it well.

    Does not apply to questions whose answer stands in a document.
    """

    evidence = (
        "Vercel and Braintrust, bash-agent-evals: questions over 68,000 records, SQL 100 % right for 0.51 USD in 45 s, file "
        "tools 63.0 % for 3.89 in 126 s, a shell 52.7 % for 3.34 in 401 s",
    )

    def applies(self, profile: Profile) -> str:
        counting = profile.question_kind == "counting" and profile.facts_needed != "none"
        return (
            "questions count over many documents: put the numbers in a database and query it"
            if counting
            else ""
        )
