"""What each arm of a trial is, in a few words: the methods, and the arms that are measured beside them.

``tunewise explain ARM``, the report and the table of arms read it.
"""

from __future__ import annotations

from collections.abc import Iterable

from runners.plan.arm_names import method_of

METHOD_TITLES = {
    "prompting": "instructions alone, no examples",
    "few-shot": "instructions and examples in the prompt",
    "nearest-reply": "the reply of the most similar example, word for word, or a refusal",
    "classifier": "a small classifier trained on the examples, no language model",
    "router": "the classifier where it is sure, a language model where it is not",
    "long-context": "all documents in every prompt, in place of a search",
    "agentic-search": "the model itself lists, searches and reads your documents by tools, in several calls",
    "rag": "search in your documents; the passages found are put into the prompt (RAG)",
    "lora": "fine-tuning by low-rank adaptation (LoRA)",
    "qlora": "LoRA on a base model loaded in 4 bits (QLoRA)",
    "full": "fine-tuning of all weights",
    "hybrid": "fine-tuning for style together with search in your documents for facts",
}
"""The methods' names in full."""
ARMS = {
    "prompting-scored": (
        "the most likely label after today's prompt, nothing is generated",
        "The answer is the label that the model finds most likely after the prompt, less how likely it is after other "
        "questions. So every answer is a label. Drafted for labels and a model on this machine.",
    ),
    "few-shot-scored": (
        "the most likely label after a prompt with examples, nothing is generated",
        "As prompting-scored, after the prompt that the few-shot arm chose, with its examples.",
    ),
    "rag-few-shot": (
        "search in your documents and examples in one prompt",
        "The passages that the search returns, below examples of good answers. Drafted wherever there are documents and "
        "examples; a tuned arm has to beat it.",
    ),
    "rag-tuned": (
        "as rag, with a search that was trained on the examples",
        "The same as rag except for the search. Drafted by --tune-retriever; the tuned search is used only where it is "
        "clearly better on dev questions, otherwise the arm is not asked.",
    ),
    "naive-stack": (
        "a model fine-tuned without passages that gets passages when asked",
        "The weights were tuned without passages. It shows what training on passages adds in hybrid; no arm has to beat it.",
    ),
}
"""Title and text of the arms that a trial measures beside the methods; none is recommended before it is measured."""


def arm_title(arm: str) -> str:
    """Return what an arm is in a few words, whatever its model; "" for an arm that the plan's author named."""
    return arm_titles().get(method_of(arm), "")


def arm_titles() -> dict[str, str]:
    """Return what each known arm is, by its name."""
    return METHOD_TITLES | {arm: title for arm, (title, _) in ARMS.items()}


def arms_in_words(arms: Iterable[str]) -> str:
    """Return what each arm is, in one line: "rag = search in ...; lora = fine-tuning ..."; "" where none is known."""
    methods = dict.fromkeys(map(method_of, arms))
    return "; ".join(f"{method} = {title}" for method in methods if (title := arm_title(method)))
