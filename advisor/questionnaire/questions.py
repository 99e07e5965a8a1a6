"""The questionnaire as data: one entry per question, from which wizard, flags, files and docs are derived."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from advisor.questionnaire.model_questions import MODEL_QUESTIONS
from advisor.questionnaire.question_types import Choice, Condition, KnownAnswers, Question, both, lacks

QUESTION_SECTIONS: tuple[tuple[str, str], ...] = (
    ("machine", "Where it will run, and which model"),
    ("task", "The task and its files"),
    ("knowledge", "Facts"),
    ("behaviour", "Style and format"),
    ("data", "Amounts"),
    ("scale", "How many calls, and how fast"),
    ("risk", "Risk and rules"),
)
"""The sections with their titles, in the order in which they are asked."""


_FACTS = Condition(
    ("documents", "task_needs_facts"),
    lambda known: bool(known.get("documents")) or known.get("task_needs_facts") != "none",
)
_CHANGING = Condition(("facts_change",), lambda known: known.get("facts_change") in ("slow", "fast"))
_RUNS = Condition(
    ("documents", "examples", "questions"),
    lambda known: any(known.get(key) for key in ("documents", "examples", "questions")),
)
_EXAMPLES = Condition(("examples",), lambda known: bool(known.get("examples")))
_LABELS = Condition(("output_format",), lambda known: known.get("output_format") == "labels")
_LOCAL = Condition(("data_must_stay_local",), lambda known: known.get("data_must_stay_local") is not True)


def _hosted_closed(known: KnownAnswers) -> Mapping[Any, str]:
    """Rule out a hosted model where data must stay local."""
    return {True: "the data must stay on your own machines"} if known.get("data_must_stay_local") else {}


def _local_closed(known: KnownAnswers) -> Mapping[Any, str]:
    """Rule out local data where a hosted model may be called."""
    return {True: "you allowed a hosted model to be called"} if known.get("hosted_api_allowed") else {}


_QUESTIONS: tuple[Question, ...] = (
    Question(
        "goal",
        "In one sentence: what should the model do?",
        "text",
        "task",
        "This sentence becomes the name of the plan.",
        example="Answer guests' questions about our cabins and boats.",
    ),
    Question(
        "documents",
        "Where are the documents with the facts?",
        "path",
        "task",
        "With documents, a search over them (RAG) can be tried: the model answers from passages it finds.",
        example="handbook/ (a folder), or faq.pdf. Enter alone: there are none.",
    ),
    Question(
        "examples",
        "Where are examples of good answers?",
        "path",
        "task",
        "A model is fine-tuned on them (by LoRA, for instance), or they are shown in the prompt. They "
        "also show the wanted style and length.",
        example=(
            'replies.jsonl with rows such as {"prompt": "Are you open?", "completion": "Yes, until six."}'
        ),
    ),
    Question(
        "columns",
        "Which columns of the examples are the prompt and the reply?",
        "columns",
        "task",
        "Needed only where the names of the columns do not say it.",
        when=_EXAMPLES,
        detail=True,
        example="prompt=question,reply=answer",
    ),
    Question(
        "questions",
        "Where are test questions with their right answers?",
        "path",
        "task",
        "All methods are tested on them. Without test questions we can only guess; with them we can "
        "measure. They must be held-out: not among the examples.",
        example=(
            'questions.jsonl with rows such as {"question": "When does the ferry leave?", "answers": '
            '["9:40"]}; bring 45 or more: with fewer than 30 in the test the result is a tendency'
        ),
    ),
    Question(
        "prompt",
        "Which instructions do you give the model today?",
        "text",
        "task",
        "Every method that is tested gets these instructions, so that a prompt alone has a fair chance.",
        when=_RUNS,
        example="Answer in two sentences, politely. Or the name of a file: prompt.txt",
    ),
    Question(
        "task_needs_facts",
        "Does a right answer need facts?",
        "choice",
        "knowledge",
        "Facts are better looked up; fine-tuning teaches how to answer.",
        (
            Choice("none", "no: it is about how to answer, rewrite or sort"),
            Choice("known", "yes, but general knowledge that every model has"),
            Choice("new", "yes, private or recent facts that no model can know"),
        ),
        measured_by="documents",
        example="new: your prices and opening hours; known: the capital of France; none: sorting e-mails",
    ),
    Question(
        "facts_change",
        "How often do these facts change?",
        "choice",
        "knowledge",
        "A fine-tuned model keeps the old fact until you train again. A search index is updated in seconds.",
        (Choice("static", "yearly or never"), Choice("slow", "monthly"), Choice("fast", "daily or faster")),
        when=_FACTS,
        example="a price list that changes every month: slow",
    ),
    Question(
        "must_cite",
        "Must an answer name its source?",
        "flag",
        "knowledge",
        "A fine-tuned model cannot say which document a fact came from. A search can.",
        when=_FACTS,
        example='"The last ferry leaves at 22:40 [timetable.md, line 12]": yes',
    ),
    Question(
        "question_kind",
        "What do most questions ask for?",
        "choice",
        "knowledge",
        "One search finds one fact. A model that searches by itself finds what stands in several places; counting needs a "
        "database.",
        (
            Choice("single", "one fact that stands in one place"),
            Choice("several", "facts from several places, put together"),
            Choice("vague", "what fits a need that is put in other words than the documents"),
            Choice("counting", "numbers over many documents: how many, which is the largest"),
        ),
        when=_FACTS,
        detail=True,
        example="which of our suppliers raised prices after the new contract: several",
    ),
    Question(
        "behaviour_gap",
        "With good instructions alone, how far are a model's answers from what you need?",
        "choice",
        "behaviour",
        "Think of tone, format and skill, not of facts. Fine-tuning changes these; where instructions "
        "are enough, it is wasted work.",
        (
            Choice("none", "not at all: instructions are enough"),
            Choice("low", "a little: usually right, not always"),
            Choice("high", "far: style, format or skill are missed, whatever you write"),
        ),
        example="every reply must be two sentences and end with a question, but the model writes five: high",
    ),
    Question(
        "output_format",
        "What form must the output have?",
        "choice",
        "behaviour",
        "A fixed form can be checked by code, and small fine-tuned models are good at it.",
        (
            Choice("free", "text as people write it"),
            Choice("labels", "one of a list of labels"),
            Choice("json", "JSON"),
            Choice("fixed", "another fixed form, such as a date or a table"),
        ),
        measured_by="examples",
        example='"urgent" or "not urgent": labels; an e-mail: free',
    ),
    Question(
        "labels_need_knowledge",
        "Does choosing the label take knowledge that is not in the text?",
        "flag",
        "behaviour",
        "A classifier learns from your examples alone; a large language model knows what it has read elsewhere.",
        when=_LABELS,
        example="which disease a description fits: yes; which department a message is for: no",
    ),
    Question(
        "replies_verbatim",
        "Must a reply be one of your own texts, word for word?",
        "flag",
        "behaviour",
        "Then the reply of the most similar example is given, or none: nothing is written anew.",
        detail=True,
        example="replies that a lawyer has approved: yes",
    ),
    Question(
        "absence_is_legal",
        'Is "not stated" sometimes the right answer?',
        "flag",
        "behaviour",
        "Fine-tuned models tend to answer always, even when the text says nothing; that must be tested.",
        detail=True,
        example="the name of the buyer, in a contract that names none: yes",
    ),
    Question(
        "labelled_examples",
        "How many examples of good answers do you have or can you get?",
        "count",
        "data",
        "Fewer than 10 are too few for training; 50 to 200 teach a tone; 1,000 teach a task.",
        measured_by="examples",
        # A person writes some dozens a day; a desk's archive gives some tens of thousands.
        tries=(0, 5, 30, 100, 300, 2_000, 20_000),
        example="200",
    ),
    Question(
        "label_count",
        "How many different labels are there?",
        "count",
        "data",
        "The fewer examples a label has, the less there is to learn it from.",
        when=_LABELS,
        detail=True,
        measured_by="examples",
        # From yes or no to the intents of a bank's chat (BANKING77).
        tries=(2, 10, 77),
        example="urgent, normal and later: 3",
    ),
    Question(
        "corpus_tokens",
        "How many tokens do all documents have together?",
        "count",
        "data",
        "Fewer than about 200,000 may fit into one prompt; 1,000 English words are about 1,300 tokens.",
        when=_FACTS,
        measured_by="documents",
        # From none to some thousands of reports.
        tries=(0, 50_000, 5_000_000),
        example="a book of 300 pages: 100,000; no documents: 0",
    ),
    Question(
        "answers_in_documents",
        "Of what share of the questions do the documents hold the right answer?",
        "share",
        "data",
        "A search finds only what is written down; documents about other things can make answers worse.",
        when=_FACTS,
        detail=True,
        measured_by="questions",
        # From documents about something else to a manual that was written for these questions.
        tries=(0.1, 0.9, 0.9, 0.9, 0.9),
        example="0.9 for 9 of 10",
    ),
    Question(
        "unlabelled_tokens",
        "How many tokens of raw text could be trained on?",
        "count",
        "data",
        "To train on raw text, billions of tokens are needed.",
        detail=True,
        # From none to 20,000 reports of two pages; whoever has more, as a crawl, knows it.
        tries=(0, 0, 0, 2_000_000, 20_000_000),
        example="10,000 reports of 500 words each: 6,500,000",
    ),
    Question(
        "prompt_tokens",
        "How long is a prompt today, in tokens?",
        "count",
        "data",
        "The length of prompts decides what a call costs.",
        detail=True,
        # From a sentence to ten pages of instructions.
        tries=(100, 5_000),
        example="one page of instructions: 600",
    ),
    Question(
        "answer_tokens",
        "How long is an answer, in tokens?",
        "count",
        "data",
        "The length of answers decides what a call costs.",
        detail=True,
        # From a label to three pages.
        tries=(5, 2_000),
        example="two sentences: 50",
    ),
    Question(
        "call_volume",
        "How many calls will it get?",
        "choice",
        "scale",
        "Training costs once; a long prompt costs on every call.",
        (Choice("low", "up to some thousands a month"), Choice("high", "tens of thousands a month or more")),
        when=lacks("calls_per_month"),
        example="a help desk with 100 questions a day: low",
    ),
    Question(
        "calls_per_month",
        "How many calls a month?",
        "count",
        "scale",
        "With this number we can say after how many months training is the cheaper way.",
        detail=True,
        # From one team's tool to a public service.
        tries=(100, 10_000, 1_000_000),
        example="3,000",
    ),
    Question(
        "prompting_pass_rate",
        "What share of answers is already good with your best prompt?",
        "share",
        "scale",
        "If 8 of 10 are good, stop there: nothing else needs to be built.",
        detail=True,
        # Below it nobody goes on with a prompt; above it nobody asks for advice.
        tries=(0.3, 0.6, 0.9),
        example="0.6 for 6 of 10",
    ),
    Question(
        "latency_p95_ms",
        "How fast must an answer be, in 95 of 100 cases?",
        "number",
        "scale",
        "Long prompts and searching cost time on every call.",
        detail=True,
        none_allowed=True,
        unit="ms",
        # From completion while typing to a page that loads slowly.
        tries=(300, 5_000),
        example="2000 (two seconds), or none for no limit",
    ),
    Question(
        "data_must_stay_local",
        "Must the data stay on your own machines?",
        "flag",
        "risk",
        "If so, models of a provider (OpenAI and others) cannot be used.",
        closed=_local_closed,
        example="patient records: yes",
    ),
    Question(
        "hosted_api_allowed",
        "May a model of a provider be called?",
        "flag",
        "risk",
        "Such models are larger than most machines can run, and can often do it with a prompt alone.",
        when=_LOCAL,
        detail=True,
        closed=_hosted_closed,
        example="yes, if your data may be sent to OpenAI or a similar service",
    ),
    Question(
        "wrong_answer_cost",
        "What does a wrong answer cost?",
        "choice",
        "risk",
        'If mistakes are expensive, answers must cite their sources or say "I don\'t know", a '
        "method must win clearly, and a search refuses sooner.",
        (Choice("low", "little: nobody is harmed"), Choice("high", "money, trust or safety")),
        example="a wrong dose of medicine: high; a clumsy product text: low",
    ),
    Question(
        "usable_from",
        "How many of ten answers must be right before you would use it?",
        "share",
        "risk",
        "Of the questions that have an answer; an arm below it is never named as the one to use. Without an answer it is "
        "half, and 0.8 where a wrong answer is expensive.",
        detail=True,
        # What counts without an answer, where a wrong answer is cheap or expensive.
        tries=(0.5, 0.8),
        example="0.7 for 7 of 10",
    ),
    Question(
        "budget_usd",
        "What may the one-off work cost, in USD?",
        "number",
        "risk",
        "A method that costs more is left out.",
        detail=True,
        none_allowed=True,
        unit="USD",
        # From an hour of a rented GPU to a team's project.
        tries=(10, 10_000),
        example="50, or none for no limit",
    ),
    Question(
        "can_retrain_every_days",
        "How often could you train again (every how many days)?",
        "number",
        "risk",
        "Facts that change faster than you train again cannot be taught to a model, only looked up.",
        when=both(_FACTS, _CHANGING),
        detail=True,
        none_allowed=True,
        unit="days",
        # From every night to every quarter.
        tries=(1, 90),
        example="30 for once a month",
    ),
    *MODEL_QUESTIONS,
)
_SECTION_ORDER = [name for name, _ in QUESTION_SECTIONS]
QUESTIONS: tuple[Question, ...] = tuple(
    sorted(_QUESTIONS, key=lambda question: _SECTION_ORDER.index(question.section))
)
"""The questions in the order in which they are asked: section by section."""

QUESTION_BY_ID: dict[str, Question] = {question.id: question for question in QUESTIONS}
