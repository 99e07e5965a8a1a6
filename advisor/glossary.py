"""The glossary: each word that a user meets, in one plain sentence, with an example and where to read more.

:data:`TERMS` is the table, its methods are in :mod:`advisor.terms`; :func:`explain_term` looks one up by any usual spelling,
:func:`terms_in` lists those that a text uses. ``tunewise explain TERM``, the wizard, plan output, the report and
``docs/glossary.md`` read it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

from advisor.terms import METHOD_TERMS, Term

TERMS: tuple[Term, ...] = (
    *METHOD_TERMS,
    # models
    Term(
        "base model",
        "The language model as its makers published it, before you adapt it.",
        "smollm2-135m-instruct is the built-in one; --model names another.",
        "models.md",
        ("model", "base", "plain model"),
        r"base models?|plain model",
    ),
    Term(
        "weights",
        "The numbers inside a model; training changes them.",
        'A "7B" model has 7 billion weights.',
        "models.md",
        ("weight", "parameters", "parameter"),
        r"weights|parameters",
    ),
    Term(
        "adapter",
        "The small file of new weights that LoRA or QLoRA trains; it is loaded together with its base model.",
        "One base model can serve ten teams with one adapter each.",
        "export.md",
        ("adapters", "lora adapter"),
        r"adapters?",
    ),
    Term(
        "quantization",
        "Storing the weights of a model with fewer bits each, which saves memory and costs a little quality.",
        "4 bits in place of 16: a model of 7 billion weights takes about 4 GiB in place of 14.",
        "scale.md",
        ("quantisation", "quantized", "quantised", "4 bits", "nf4"),
        r"quanti[sz](?:ation|ed)",
    ),
    Term(
        "token",
        "The piece of text a model reads and writes at a time: a short word or a part of a longer one.",
        "1,000 English words are about 1,300 tokens.",
        "scale.md",
        ("tokens",),
        r"tokens?",
    ),
    # data
    Term(
        "examples",
        "Pairs of a prompt and a good answer to it, from which a model is fine-tuned or which a prompt shows.",
        '{"prompt": "Is the desk open on Sunday?", "completion": "No. We are closed on Sundays."}',
        "own-documents.md",
        ("example", "training examples", "training data"),
        r"examples?",
    ),
    Term(
        "questions",
        "Questions with known right answers, on which all methods are tested; they are never used for training.",
        '{"question": "When does the last ferry leave?", "answers": ["22:40"]}',
        "own-documents.md",
        ("question",),
        r"questions?",
    ),
    Term(
        "held-out",
        "Kept away from training, so that a good result shows that a method works on something new.",
        "A student is not tested on the very exercises that were solved in class.",
        "how-it-measures.md",
        ("held out", "heldout", "holdout"),
        r"held[- ]out",
    ),
    Term(
        "dev questions",
        "The third of your questions that is used for choices before the test: which prompt, how many passages, when to "
        "refuse.",
        "Of 60 questions about 20 are dev questions.",
        "how-it-measures.md",
        ("dev", "dev set", "development questions", "validation questions"),
        r"dev(?:elopment)? questions?",
    ),
    Term(
        "test questions",
        "The rest of your questions: nothing reads them before the final test of all methods.",
        "Of 60 questions about 40 are test questions; fewer than 30 show a tendency only.",
        "how-it-measures.md",
        ("test", "test set"),
        r"test questions?",
    ),
    Term(
        "gold",
        "What is known to be right for a question: its answer, or the document that has the answer.",
        '"answers": ["22:40"] and "doc_id": "timetable.md" in a row of questions.',
        "own-documents.md",
        ("gold answer", "gold document", "ground truth", "reference"),
        r"gold",
    ),
    Term(
        "style",
        "How answers are written: tone, length, format, and what they always begin or end with.",
        "Every answer is two sentences and ends with a question.",
        "how-it-measures.md",
        ("house style", "tone", "behaviour", "behavior"),
        r"house style|style",
    ),
    # retrieval
    Term(
        "index",
        "The searchable copy of your documents: each passage with its text and its embedding.",
        "tunewise index build my-index --documents docs/ makes one; a changed file is updated in seconds.",
        "update-documents.md",
        ("search index",),
    ),
    Term(
        "embedding",
        "A list of numbers that represents the meaning of a text, so that texts of like meaning have like numbers.",
        '"opening hours" and "when are you open" get nearly the same numbers, though no word is the same.',
        "backends.md",
        ("embeddings", "vector", "vectors"),
        r"embeddings?|vectors?",
    ),
    Term(
        "embedder",
        "The small model that computes embeddings; the search uses it to find passages.",
        "all-minilm-l6-v2 is the built-in one, multilingual-e5-small that of other languages than English.",
        "backends.md",
        ("embedding model", "retriever"),
        r"embedder|retriever",
    ),
    Term(
        "passage",
        "A piece of a document, a few paragraphs long, that the search can find (also called a chunk).",
        "The paragraph on refunds from a handbook of 80 pages.",
        "update-documents.md",
        ("passages", "chunk", "chunks", "hit", "hits"),
        r"passages?|chunks?",
    ),
    Term(
        "citation",
        "The mark after a sentence that names the passage it is supported by.",
        "The last ferry leaves at 22:40 [1], where [1] is timetable.md, line 12.",
        "own-documents.md",
        ("citations", "cite", "source"),
        r"citations?|cited?",
    ),
    Term(
        "refusal",
        'An answer that says "I don\'t know" because the documents do not have the answer.',
        'Asked for the population of Iceland, a help desk answers: "I have nothing on that."',
        "how-it-measures.md",
        ("refusals", "refuse", "refuses", "unanswerable"),
        r"refusals?|refus(?:e|es|ed)",
    ),
    # the advice
    Term(
        "rule",
        "One reason for or against a method, with a code, a text and its evidence.",
        "KN002: an answer that must name its source needs retrieval. Print it with: tunewise explain KN002",
        "rules.md",
        ("rules", "rule code", "finding"),
        r"rules?",
    ),
    Term(
        "probability",
        "How often advice is right: one rate for all advice, from published decisions that no rule had seen, moved by your "
        "own finished trials; the confidence is the same in a word.",
        "On decisions that no rule had seen, 153 of 215 recommendations were right (of 115 of them 77, by a rule of thumb "
        "63); with 3 of 4 trials of your own the rate is 0.73.",
        "how-it-decides.md",
        ("confidence", "confident"),
        r"probability|confidence",
    ),
    Term(
        "calibration",
        "Whether stated probabilities are true: things said to be 70 % likely should happen 7 times in 10.",
        "accuracy.md compares what tunewise said with how often it was right.",
        "accuracy.md",
        ("calibrated", "reliability"),
        r"calibrat(?:ion|ed)",
    ),
    Term(
        "probe",
        "A short test of the base model on some of your questions before anything is built.",
        "In a few minutes it shows how many answers a prompt alone gets right.",
        "how-it-decides.md",
        ("probing",),
        r"probes?",
    ),
    Term(
        "break-even",
        "The number of calls after which the method that costs more at first is the cheaper one in total.",
        "Training costs 20 USD once and saves 0.2 cents on each call: break-even is at 10,000 calls.",
        "how-it-decides.md",
        ("break even", "breakeven"),
        r"break-even",
    ),
    Term(
        "plan",
        "The file plan.yaml: the recommended method and the others to measure with it, as steps you can read and edit.",
        "tunewise plan writes it, tunewise run carries it out.",
        "plan.md",
    ),
    # the measurement
    Term(
        "arm",
        "One method as it is measured in a trial; all arms get the same questions.",
        "prompting, rag and hybrid are three arms of one trial.",
        "how-it-measures.md",
        ("arms",),
        r"arms?",
    ),
    Term(
        "trial",
        "The test in which every method answers the same test questions and is scored.",
        "40 questions, five methods, 200 scored answers.",
        "how-it-measures.md",
        ("trials",),
        r"trials?",
    ),
    Term(
        "run",
        "The folder with everything that came of carrying out a plan: index, adapters, answers, scores, report.",
        "tunewise report runs/help-desk opens what is in it.",
        "how-it-measures.md",
        ("run folder", "runs"),
    ),
    Term(
        "verdict",
        "What the trial says of the recommendation: confirmed, overturned, or undecided when the methods are too close.",
        "Undecided with 24 questions: hybrid and lora could be equal.",
        "how-it-measures.md",
        ("verdicts", "confirmed", "overturned", "undecided"),
        r"verdicts?",
    ),
    Term(
        "gate",
        "The simpler methods that the recommended one must clearly beat before it is called confirmed.",
        "hybrid has to beat rag and lora; otherwise the simpler one is the better choice.",
        "how-it-measures.md",
        ("gates",),
        r"gates?",
    ),
    Term(
        "score",
        "A number from 0 to 1 for how good answers are, computed by code from the known right answers.",
        "style 0.90: nine of ten answers are in your style.",
        "how-it-measures.md",
        ("scores", "combined score"),
        r"scores?",
    ),
    Term(
        "confidence interval",
        "The range in which the true value probably is; few questions give a wide one.",
        "0.70 [0.55, 0.82]: 70 % right on your questions, on many more probably between 55 and 82 %.",
        "how-it-measures.md",
        ("interval", "intervals", "within noise", "noise"),
        r"intervals?",
    ),
    Term(
        "leakage",
        "Test questions that are also among the training examples, which makes a trained method look better than it is.",
        "A question and an example with the same wording are refused, with file and line of both.",
        "how-it-measures.md",
        ("leak", "leaks"),
        r"leak(?:age|s)?",
    ),
    Term(
        "forgetting",
        "What a model did well before training and does worse after it.",
        "After training on short replies, general texts are predicted a little worse.",
        "how-it-measures.md",
        ("catastrophic forgetting",),
    ),
    Term(
        "seed",
        "The number from which all random choices follow; the same seed gives the same result.",
        "seed: 0 in plan.yaml; three seeds show how much a result depends on chance.",
        "plan.md",
        ("seeds", "random seed"),
        r"seeds?",
    ),
    Term(
        "epoch",
        "One pass of training over all examples.",
        "3 epochs: every example is read three times.",
        "plan.md",
        ("epochs",),
        r"epochs?",
    ),
)
INTRODUCED: tuple[str, ...] = (
    "RAG",
    "LoRA",
    "QLoRA",
    "few-shot",
    "hybrid",
    "arm",
    "verdict",
    "held-out",
    "embedder",
    "probability",
)
"""The ten words that are explained where they first appear: those that a reader without practice in this field lacks."""


def _key(name: str) -> str:
    """Return a word without case, hyphens, underscores and doubled spaces."""
    return " ".join(re.sub(r"[-_\s]+", " ", name.casefold()).split())


@cache
def _by_key() -> dict[str, Term]:
    """Return the terms by their names and aliases; a name is stronger than another term's alias."""
    by_alias = {_key(alias): term for term in reversed(TERMS) for alias in term.aliases}
    return {**by_alias, **{_key(term.name): term for term in TERMS}}


def term_names() -> tuple[str, ...]:
    """Return the names of all terms, in the order of the table."""
    return tuple(term.name for term in TERMS)


def find_term(name: str) -> Term | None:
    """Return the term with this name or alias, in any case, with or without hyphens; None where there is none."""
    return _by_key().get(_key(name))


def explain_term(name: str) -> Term:
    """Return the term with this name or alias.

    Raises:
        KeyError: where there is none.
    """
    if (term := find_term(name)) is None:
        raise KeyError(name)
    return term


@cache
def _pattern(term: Term) -> re.Pattern[str]:
    """Return a pattern that finds the term in a sentence, as a word of its own and not as part of a path or key."""
    return re.compile(
        rf"(?<![\w./-])(?:{term.inflected or re.escape(term.name)})(?![\w/-]|\.\w)", re.IGNORECASE
    )


def terms_in(text: str, names: Iterable[str] = INTRODUCED) -> list[Term]:
    """Return the terms that a text uses, in the order of their first use.

    Args:
        text: what is shown.
        names: names of the terms to look for.
    """
    found_at = {}
    for term in map(explain_term, names):
        if match := _pattern(term).search(text):
            found_at[term] = match.start()
    return sorted(found_at, key=lambda term: found_at[term])


def words_footer(text: str, rule: str = "") -> str:
    """Return the line that says which of the ten words a text uses and how they are explained; "" where it uses none.

    Args:
        text: what is shown.
        rule: the code of a rule that is shown too, as an example of how rules are explained.
    """
    used = [term.name for term in terms_in(text)]
    if not used:
        return ""
    rules = f" (a rule: tunewise explain {rule})" if rule else ""
    return f"words: {', '.join(used)}. What one means: tunewise explain {used[0]}{rules}"
