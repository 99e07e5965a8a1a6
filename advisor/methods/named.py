"""Ways that are named and not built: what they do, published figures, and when to think of them; no rule advises them.

``tunewise explain NAME`` and docs/rules.md read :data:`NAMED`. Figures are of abstracts and makers' pages unless it is said
otherwise, and every entry says what was not read.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedMethod:
    """A published way of adapting a model that cannot be run here."""

    title: str
    text: str
    """What it does, figures, when to think of it, and what was not read of its sources."""
    sources: tuple[str, ...]


NAMED: dict[str, NamedMethod] = {
    "cartridges": NamedMethod(
        title="a small key-value cache trained for a set of documents, loaded in their place",
        text="The weights of the model stay as they are. The model holds conversations about parts of the documents with "
        "itself, and the cache learns to give the same next tokens as the model with the documents in its prompt; "
        'training it on the plain text alone is "not competitive". Figures: the quality of the whole text in the '
        "prompt with 38.6 times less memory and 26.4 times the throughput, and texts of 484,000 tokens for a "
        "context of 128,000 on one task (2506.06266). Caches of single documents cannot be joined as they are "
        "(quality falls to nearly chance); trained together they scale beyond a million tokens, 2 to 6 points below "
        "everything in the prompt, and with a search that selects them they reach RAG or pass it with 3 to 4 times "
        "fewer prompt tokens (2606.04557). Think of it where you serve an open model yourself, the same documents "
        "are asked very often and seldom change, and the memory of long prompts is the limit; not with hosted "
        "models, and not for documents that change daily. Not read: the tables of both papers.",
        sources=(
            "arXiv 2506.06266, abstract",
            "arXiv 2606.04557, abstract",
        ),
    ),
    "doc-to-lora": NamedMethod(
        title="a second network that reads a document and writes a LoRA adapter for it, in one pass",
        text="That network is trained once for a base model, by whoever publishes it; a document then costs a forward "
        "pass, and the model answers without the document in its prompt. Figures: nearly perfect in "
        "needle-in-a-haystack tests on texts more than four times as long as the model's context (five times on the "
        "makers' page), in less than a second; better than context distillation for single documents on real "
        "questions, with less memory and time. Think of it where many users each bring one document to an open "
        "model for which such a network is published, and answers must be short of memory and waiting. It gives no "
        "citations, and questions over many documents were not shown. Not read: the tables on real questions, so "
        "how far it is behind the document in the prompt is not stated here.",
        sources=(
            "arXiv 2602.15902, a summary of its abstract",
            "sakana.ai/doc-to-lora, the makers' page",
        ),
    ),
    "sparse-memory-tuning": NamedMethod(
        title="memory layers of which only the rows that the new text uses most are updated",
        text="The model has large tables of keys and values in place of some feed-forward layers, of which a token uses "
        "a few rows; new facts change only those rows that the new text uses much more than the pretraining text "
        "did (TF-IDF). Figures: after new facts were learnt to the same degree, the F1 on NaturalQuestions fell by "
        "89 % with full tuning, by 71 % with LoRA and by 11 % so. Think of it where facts must go into weights "
        "again and again and forgetting is the problem, with a base model that was built with such layers; usual "
        "open models have none, so it cannot be run on them. Its use for advice today is in the other two figures: "
        "what plain tuning on new facts costs. Not read: the size of the model and the number of facts.",
        sources=("arXiv 2510.15103, abstract",),
    ),
    "rewritten-pretraining": NamedMethod(
        title="continued pretraining on documents that a model has rewritten many times",
        text="Paraphrases, questions with answers, summaries or study plans are trained on in place of the documents "
        "alone. Figures: diverse versions significantly improve the learning of new facts from a few thousand or "
        "million tokens, and the model forgets other things; retrieval often cost more on control sets than that "
        "(2508.06178). With ways to study that the model invents itself, 8 B models reach 66 % on a Wikipedia part "
        "of SimpleQA, 313 % more than plain tuning, and 26 % on FinanceBench, 160 % more (2508.09494); a search by "
        "the model reached 84 to 92 % on FinanceBench and everything in the prompt 76 to 79 %, with other models "
        "and other scoring. Think of it where documents are stable, answers must come without a search, there is "
        "much compute for rewriting and training, and forgetting is measured; mostly together with RAG and not in "
        "its place. Not read: the tables of both papers, the number of rewrites and how much was forgotten; that it "
        "equals RAG is claimed in places and not here.",
        sources=(
            "arXiv 2508.06178, abstract",
            "arXiv 2508.09494, abstract",
        ),
    ),
}
"""By name, in the order of the page."""
