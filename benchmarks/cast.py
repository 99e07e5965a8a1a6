"""The public sets as users would bring them: what they would answer, and how much of them is used.

The answers were written from each set's description before anything was measured, and stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Part:
    """One public set in the part of a user's situation."""

    name: str
    task: str
    answers: tuple[str, ...]
    """What a user would say, as ``key=value``; the rest is counted in the files or detected. Sets with an answers file
    of their own (profile.yaml) are answered by it instead."""
    wanted: str
    """What the trial is expected to show."""
    dev: int
    test: int
    examples: int = 0
    tuned: tuple[str, ...] = ()
    """Ways of tuning that are measured besides those of the advisor's own plan."""
    checks: tuple[Mapping[str, Any], ...] = ()
    """The set's own rule of style, in place of the one that is learnt from the examples."""
    kind: str = ""
    """Kind of task, as the table of the trials groups them."""
    source: str = ""
    """Folder of the rows that it is made from; "" for that of its name."""
    held_back: bool = False
    """Named as a test before any of these sets was run: looked at once, when rules and probability were fixed."""


CAST: tuple[Part, ...] = (
    Part(
        "hybrid_concierge",
        "hotel and restaurant questions in a house style",
        ("facts_change=slow", "behaviour_gap=high", "must_cite=yes", "call_volume=high"),
        "hybrid wins",
        kind="facts and style",
        dev=60,
        test=100,
        examples=400,
        checks=(
            {
                "kind": "regex",
                "value": r"^[^?]*[.!] [^?]*\?$",
                "text": "a statement, then exactly one closing question",
            },
        ),
    ),
    Part(
        "snips_json",
        "spoken requests to JSON: intent and slots",
        ("task_needs_facts=none", "behaviour_gap=high", "call_volume=high"),
        "tuning beats prompting on valid JSON with the right slots",
        kind="JSON",
        dev=60,
        test=150,
        examples=800,
        tuned=("lora", "full"),
    ),
    Part(
        "banking77",
        "a bank's customer messages to one of 77 labels",
        ("task_needs_facts=none", "behaviour_gap=low", "call_volume=high"),
        "classifier and tuning against prompting",
        kind="labels",
        dev=60,
        test=150,
        examples=770,
    ),
    Part(
        "clapnq_dev",
        "long answers from Wikipedia passages, half of the questions without one",
        (
            "facts_change=slow",
            "behaviour_gap=low",
            "must_cite=yes",
            "call_volume=low",
            "wrong_answer_cost=high",
        ),
        "retrieval wins, and refuses",
        kind="facts",
        dev=60,
        test=120,
    ),
    Part(
        "gsm8k_format",
        "word problems with a fixed last line",
        ("task_needs_facts=none", "behaviour_gap=high", "call_volume=low"),
        "the format is learned, the sums are not",
        kind="sums and code",
        dev=40,
        test=80,
        examples=500,
        tuned=("lora",),
    ),
    Part(
        "xquad_en",
        "short answers from paragraphs of Wikipedia",
        ("facts_change=static", "behaviour_gap=low", "call_volume=low"),
        "retrieval wins",
        kind="facts",
        dev=60,
        test=120,
        examples=400,
    ),
    Part(
        "clinc150_intents",
        "requests to a voice assistant to one of 150 labels",
        (
            "task_needs_facts=none",
            "facts_change=static",
            "must_cite=no",
            "behaviour_gap=high",
            "call_volume=high",
            "wrong_answer_cost=low",
            "output_format=labels",
        ),
        "the classifier and tuning lead; prompting does not know the names of the labels",
        kind="labels",
        dev=60,
        test=150,
        examples=1500,
    ),
    Part(
        "sgd_state_json",
        "booking dialogues to JSON: intent and wishes so far",
        (
            "task_needs_facts=none",
            "facts_change=static",
            "must_cite=no",
            "behaviour_gap=high",
            "call_volume=high",
            "wrong_answer_cost=high",
            "output_format=json",
        ),
        "tuning learns the names of intents and slots, which are not in the prompt",
        kind="JSON",
        dev=40,
        test=80,
        examples=500,
    ),
    Part(
        "wnut17_json",
        "short posts to JSON: names of six kinds",
        (
            "task_needs_facts=none",
            "facts_change=static",
            "must_cite=no",
            "behaviour_gap=high",
            "call_volume=high",
            "wrong_answer_cost=low",
            "output_format=json",
            "absence_is_legal=yes",
        ),
        "the form is easy to describe; which words are a name is not",
        kind="JSON",
        dev=40,
        test=80,
        examples=400,
    ),
    Part(
        "canard_rewrite",
        "follow-up questions rewritten so that they stand alone",
        (),
        "tuning learns the rewriting; prompting repeats the question",
        kind="follow-ups",
        dev=30,
        test=80,
        examples=250,
    ),
    Part(
        "disfl_cleanup",
        "spoken questions without their hesitations",
        (),
        "tuning wins clearly",
        kind="style",
        dev=40,
        test=120,
        examples=500,
    ),
    Part(
        "dstc11_reviews",
        "a concierge's replies out of guests' reviews",
        (),
        "hybrid wins: style from the examples, facts from the reviews",
        kind="facts and style",
        dev=24,
        test=50,
        examples=100,
        checks=(
            {
                "kind": "regex",
                "value": r"^[^?]*[.!] [^?]*\?$",
                "text": "a statement, then exactly one closing question",
            },
        ),
    ),
    Part(
        "endoflife_dates",
        "release and end-of-life dates that change monthly",
        (),
        "retrieval finds the page; a short answer needs examples",
        kind="facts",
        dev=30,
        test=80,
        examples=200,
    ),
    Part(
        "brand_colours",
        "colours of brands, without any examples",
        (),
        "retrieval wins",
        kind="facts",
        dev=40,
        test=120,
    ),
    Part(
        "humaneval_code",
        "small Python functions, without any examples",
        (),
        "no arm can do it",
        kind="sums and code",
        dev=20,
        test=60,
    ),
    Part(
        "networkx_docstrings",
        "first lines of docstrings in a house style",
        (),
        "tuning learns the style",
        kind="style",
        dev=24,
        test=69,
        examples=250,
    ),
    Part(
        "qed_reading",
        "a phrase copied from a paragraph that the prompt holds",
        (),
        "nearly done by prompting; tuning adds the form",
        kind="reading",
        dev=30,
        test=100,
        examples=250,
    ),
    Part(
        "query_wellformed",
        "search queries to one of two labels",
        (),
        "the classifier and tuning lead",
        kind="labels",
        dev=60,
        test=200,
        examples=600,
    ),
    Part(
        "rust_rfc_text",
        "the next words of design documents, from raw text",
        (),
        "no arm gains much: far too little text",
        kind="raw text",
        dev=30,
        test=100,
        examples=200,
    ),
    Part(
        "tldr_de",
        "command descriptions in German",
        (),
        "tuning wins; the model hardly knows German",
        kind="other languages",
        dev=40,
        test=120,
        examples=500,
    ),
    Part(
        "xquad_es",
        "short answers from Spanish paragraphs",
        (),
        "retrieval wins over none, the hybrid over both",
        kind="other languages",
        dev=24,
        test=60,
        examples=150,
    ),
    Part(
        "germeval_offence",
        "German posts to one of two labels",
        (),
        "the classifier and tuning lead, not by much",
        kind="other languages",
        dev=60,
        test=200,
        examples=400,
        held_back=True,
    ),
    Part(
        "gotools_commits",
        "subject lines of commits in a project's style",
        (),
        "tuning learns the form",
        kind="style",
        dev=24,
        test=80,
        examples=200,
        held_back=True,
    ),
    Part(
        "browser_compat",
        "since which version a browser can do something",
        (),
        "hybrid: retrieval finds the version, examples the form",
        kind="facts",
        dev=30,
        test=60,
        examples=120,
        held_back=True,
    ),
    Part(
        "tldr_commands",
        "command line questions on a card of three lines",
        (),
        "hybrid wins: the card from the examples, the command from the page",
        kind="facts and style",
        dev=24,
        test=50,
        examples=100,
        held_back=True,
    ),
    Part(
        "svamp_sums",
        "short sums in words",
        (),
        "the form is learned, the sums hardly",
        kind="sums and code",
        dev=40,
        test=150,
        examples=400,
        held_back=True,
    ),
    Part(
        "mtragun_followups",
        "follow-up questions answered from help pages",
        (),
        "retrieval wins; 110 examples teach little",
        kind="follow-ups",
        dev=24,
        test=50,
        examples=80,
        held_back=True,
    ),
    Part(
        "restore_case",
        "capitals and punctuation put back",
        (),
        "prompting nearly does it, tuning does",
        kind="reading",
        dev=30,
        test=80,
        examples=300,
        held_back=True,
    ),
    Part(
        "snips_intents",
        "spoken requests to one of 7 intents",
        ("task_needs_facts=none", "behaviour_gap=low", "call_volume=high", "output_format=labels"),
        "the classifier leads",
        kind="labels",
        dev=60,
        test=150,
        examples=140,
        source="snips_json",
        held_back=True,
    ),
    Part(
        "sgd_intents",
        "talks between a user and an assistant to one of 20 intents",
        ("task_needs_facts=none", "behaviour_gap=low", "call_volume=high", "output_format=labels"),
        "the classifier and tuning lead; the intent stands in the last turns",
        kind="labels",
        dev=60,
        test=120,
        examples=400,
        source="sgd_state_json",
        held_back=True,
    ),
    Part(
        "disfl_detect",
        "spoken questions to fluent or disfluent: a label of form, not of meaning",
        ("task_needs_facts=none", "behaviour_gap=low", "call_volume=high", "output_format=labels"),
        "tuning leads; embeddings hardly see hesitations",
        kind="labels",
        dev=60,
        test=150,
        examples=400,
        source="disfl_cleanup",
        held_back=True,
    ),
)

NOT_RUN = {
    "dstc11_reviews": "takes over an hour on two cores: begun, not finished",
    "rust_rfc_text": "takes over an hour on two cores: begun, not finished",
    "browser_compat": "a test set that takes about an hour on two cores: not begun",
    "mtragun_followups": "a test set that takes about an hour on two cores: not begun",
    "snips_intents": "a test set: classifier (146 of 150) and the arms with a language model (full 130) measured apart",
    "disfl_detect": "a test set: its classifier alone was measured (146 of 150), the trial not begun",
    "sgd_intents": "a test set: not begun",
}
"""Sets without a record, and why; a set that has one by now needs no entry any more."""
