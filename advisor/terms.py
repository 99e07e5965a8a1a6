"""What a word of the glossary is, and the words for methods: see :mod:`advisor.glossary`, which has all words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Term:
    """A word of this field, explained.

    Attributes:
        name: the word as it is written in a sentence.
        sentence: what it is, in one plain sentence.
        example: a case of it.
        page: the page of ``docs/`` that says more.
        aliases: other usual spellings, in lower case.
        inflected: a regular expression for the word within a sentence, "" for its name.
    """

    name: str
    sentence: str
    example: str
    page: str
    aliases: tuple[str, ...] = ()
    inflected: str = ""

    @property
    def read_more(self) -> str:
        """The page that says more, as a path in the repository."""
        return f"docs/{self.page}"

    def to_json(self) -> dict[str, str]:
        """Return the term as a page of ``tunewise explain --json``."""
        explained = {"text": self.sentence, "example": self.example, "read_more": self.read_more}
        return {"term": self.name, **explained}


METHOD_TERMS: tuple[Term, ...] = (
    Term(
        "method",
        "A way to adapt a language model to a job: prompting, few-shot, long context, RAG, agentic search, LoRA, QLoRA, "
        "full fine-tuning or hybrid.",
        "Writing better instructions is one method, training the model on your examples is another.",
        "how-it-decides.md",
        ("methods",),
        r"methods?",
    ),
    Term(
        "prompting",
        "The model gets written instructions with every question, and nothing else.",
        '"Answer in two sentences, politely" is put before each question.',
        "how-it-measures.md",
        ("prompt", "zero-shot", "zero shot", "instructions"),
    ),
    Term(
        "few-shot",
        "The instructions also show the model a few examples of good answers; nothing is trained.",
        "Three earlier e-mails and their replies are put before the new e-mail.",
        "how-it-measures.md",
        ("few shot", "fewshot", "in-context learning"),
    ),
    Term(
        "classifier",
        "A small program trained on the examples that gives one of their labels; no language model is asked.",
        "Messages are sorted into refund, lost and hours in milliseconds each.",
        "how-it-measures.md",
    ),
    Term(
        "nearest-reply",
        "The reply of the most similar example is given word for word, or none; nothing is written anew.",
        'To "when do you open" the stored reply to "what are your opening hours" is given.',
        "how-it-measures.md",
    ),
    Term(
        "router",
        "A classifier (or stored replies) answers what it is sure of, and a language model the rest.",
        "Of 100 messages 80 get their label from the classifier; the language model is asked about 20.",
        "how-it-measures.md",
    ),
    Term(
        "RAG",
        "For each question the program searches your documents and puts the passages it finds before the question "
        "(retrieval-augmented generation).",
        'Asked "When does the last ferry leave?", it finds timetable.md, and the model answers from that page.',
        "how-it-measures.md",
        ("retrieval", "retrieval-augmented generation", "search"),
        r"rag|retrieval",
    ),
    Term(
        "long context",
        "All documents are put into every prompt, in place of a search; they must fit what the model can read at once.",
        "A handbook of 60 pages stands before each question, and the provider keeps it in a prompt cache.",
        "how-it-decides.md",
        ("long-context", "whole corpus in the prompt", "context stuffing"),
    ),
    Term(
        "agentic search",
        "The model is given tools that list, search and read the documents, and looks facts up itself in several calls.",
        "Asked about a refund, it lists the documents, searches for refund, reads 40 lines of terms.md, and answers.",
        "agentic-search.md",
        ("agentic-search", "search by the model", "agentic rag", "tool use"),
    ),
    Term(
        "fine-tuning",
        "Training changes the model itself, so that it answers as your examples do.",
        "After training on 500 replies of your support team, the model writes in their style without being told.",
        "how-it-decides.md",
        ("finetuning", "fine tuning", "tuning", "training"),
        r"fine-tun(?:ing|ed?)|tuning|tuned",
    ),
    Term(
        "LoRA",
        "Fine-tuning that adds a small set of new weights (an adapter) to the model and leaves the model's own weights "
        "as they are (low-rank adaptation).",
        "For the built-in model of 135 million weights, rank 16 trains 4.9 million weights, less than 4 %.",
        "how-it-decides.md",
        ("low-rank adaptation", "low rank adaptation"),
    ),
    Term(
        "QLoRA",
        "LoRA on a model that is stored with 4 bits a weight, so that a larger model fits in the same memory.",
        "A model of 7 billion weights needs about 7 GiB of GPU memory in place of the 15 GiB of LoRA.",
        "how-it-decides.md",
        ("quantised lora", "quantized lora"),
    ),
    Term(
        "full fine-tuning",
        "Fine-tuning that changes all weights of the model; it needs the most memory and leaves a whole new model.",
        "A model of 7 billion weights needs about 80 GiB, more than any consumer GPU has.",
        "how-it-decides.md",
        ("full", "full finetuning", "full tuning"),
    ),
    Term(
        "hybrid",
        "The model is fine-tuned to write in your style and looks facts up in your documents.",
        "A help desk: the tone is trained, opening hours are searched in the documents for each question.",
        "how-it-measures.md",
        ("rag and lora", "raft"),
    ),
)
