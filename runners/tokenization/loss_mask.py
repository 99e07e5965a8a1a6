"""Find the spans of a rendered chat that the loss is taken on: the assistant's turns in the template's actual output.

A template's own marks (``{% generation %}``) are used where there are any. For other templates a turn is the text between
the chat rendered up to it, as the model will be prompted, and the chat rendered to its end; both must be prefixes of the
whole chat. Templates that rewrite earlier turns when later ones follow (dropping their reasoning, moving the instructions)
violate that for those turns: then only the last turn is trained on, and the result has a note.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rag.errors import BadInput
from rag.text.words import count_noun
from runners.data.formats import Message

OPEN, CLOSE = "\ufdd0", "\ufdd1"
"""Written around marked turns to find their spans: code points that are not characters and occur in no text."""

RenderChat = Callable[..., str]
"""``render(messages, prompt=False, marked=False)``: ``ChatTokenizer.render`` with the row's tools."""


@dataclass(frozen=True, slots=True)
class LossMask:
    """The spans of a rendered chat that the loss is taken on."""

    spans: tuple[tuple[int, int], ...]
    """Character offsets (start, end) in the text."""
    note: str = ""
    """Why fewer turns are trained on than were requested, "" when all are."""


def trained_turns(messages: Sequence[Message], turns: str = "all") -> list[int]:
    """Return the indices of the turns to train on: the assistant's, all or only the last.

    Tool calls are context, like their results. A turn with ``weight`` 0 is left out.
    """
    replies = [i for i, m in enumerate(messages) if m["role"] == "assistant" and "tool_calls" not in m]
    if turns == "last":
        replies = replies[-1:]
    return [i for i in replies if messages[i].get("weight", 1) != 0]


def find_trained_spans(
    messages: Sequence[Message], text: str, render: RenderChat, turns: str = "all", text_end: str = ""
) -> LossMask:
    """Return the spans of the turns to train on.

    Args:
        messages: the chat, as the template accepts it.
        text: the whole chat, rendered.
        render: renders a part of the chat.
        turns: all or last.
        text_end: the tokenizer's end token, which some templates write after the last turn of a chat alone.

    Raises:
        BadInput: the last answer does not follow the prompt that the model will be given, so that training and use would
            differ, or the template leaves a turn out.
    """
    _require_all_turns(messages, text)
    indices = trained_turns(messages, turns)
    if marked := _marked_spans(messages, text, render):
        return LossMask(
            tuple(_after_prompt(messages, i, text, render, marked[i]) for i in indices if i in marked)
        )
    spans = {i: span for i in indices if (span := _turn_span(messages, i, text, render, text_end))}
    missing = len(indices) - len(spans)
    if indices and indices[-1] not in spans:
        _refuse(messages, indices[-1], text, render)
    if missing:
        # The context of a turn before a rewritten one would never occur when the model is used.
        return LossMask(
            (spans[indices[-1]],),
            f"the template rewrites {missing} of {count_noun(len(indices), 'answer')} once later turns follow, "
            "so only the last is learnt",
        )
    return LossMask(tuple(spans.values()))


def _after_prompt(
    messages: Sequence[Message], index: int, text: str, render: RenderChat, span: tuple[int, int]
) -> tuple[int, int]:
    """Return a marked span without what belongs to the prompt: some templates mark the header of the turn too."""
    before = render(messages[:index], prompt=True) if index else ""
    start, end = span
    return (max(start, len(before)), end) if text.startswith(before) and len(before) < end else span


def _turn_span(
    messages: Sequence[Message], index: int, text: str, render: RenderChat, text_end: str
) -> tuple[int, int] | None:
    """Return the span that rendering a turn adds; None when the chat before or with it is no prefix of the text."""
    if index == 0:
        start = max(text.find(messages[0]["content"].strip()), 0)
        before = text[:start]
    else:
        before = render(messages[:index], prompt=True)
    including = render(messages[: index + 1])
    if text_end and not text.startswith(including):
        shorter = including.removesuffix(text_end)
        # Only where the turn has an end token of its own: else the model would not learn to stop.
        including = including if shorter.rstrip().endswith(messages[index]["content"].strip()) else shorter
    is_prefix = text.startswith(before) and text.startswith(including) and len(including) > len(before)
    return (len(before), len(including)) if is_prefix else None


def _marked_spans(messages: Sequence[Message], text: str, render: RenderChat) -> dict[int, tuple[int, int]]:
    """Return the marked span of each assistant turn, {} when the template does not mark all of them."""
    marked = render(messages, marked=True)
    if OPEN not in marked:
        return {}
    # Offsets are counted in the text without marks.
    clean, *turns = marked.split(OPEN)
    spans = []
    for turn in turns:
        inside, _, after = turn.partition(CLOSE)
        spans.append((len(clean), len(clean) + len(inside)))
        clean += inside + after
    indices = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
    return dict(zip(indices, spans, strict=True)) if clean == text and len(spans) == len(indices) else {}


def common_length(a: str, b: str) -> int:
    """Return the number of characters that two texts have in common at their beginning."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _refuse(messages: Sequence[Message], index: int, text: str, render: RenderChat) -> None:
    """Raise BadInput for a turn that does not follow its prompt, showing where they part."""
    before = render(messages[:index], prompt=True) if index else ""
    common = common_length(before, text)
    if before and common < len(before) and text.startswith(render(messages[:index])):
        raise BadInput(
            f"the chat template asks with {before[common:]!r} at the end, but the answer does not begin with it",
            "answers must begin as the template asks for them (often with the reasoning), or choose another model",
        )
    raise BadInput(
        "the chat template does not keep the last answer after its prompt",
        "the model could not be asked as it was trained; choose another model, or a template that appends turns",
    )


def _require_all_turns(messages: Sequence[Message], text: str) -> None:
    """Raise BadInput when the template leaves out a turn that is context: instructions, a question, a tool's result."""
    for message in messages:
        content = message["content"].strip()
        # A template may write a turn as JSON.
        escaped = content.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        if message["role"] != "assistant" and content not in text and escaped not in text:
            raise BadInput(
                f"the chat template drops the {message['role']} turn",
                "put its words into a user turn, or choose a model whose template shows it",
            )
