"""Which part of a rendered chat is learnt: the assistant's turns, found in what the template really writes.

A template that marks them (``{% generation %}``) is taken at its word. For any other, a turn is what lies between the
chat rendered up to it, as the model will be asked, and the chat rendered to its end; both must be the beginning of
the whole. Templates that rewrite earlier turns when later ones follow (dropping their reasoning, moving the
instructions) break that for those turns: only the last is learnt then, and it is said.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rag.errors import BadInput
from runners.data.formats import Message

OPEN, CLOSE = "\ufdd0", "\ufdd1"
"""Around a marked turn while its place is looked for: code points that are no characters, in no text."""

RenderChat = Callable[..., str]
"""``render(messages, prompt=False, marked=False)``: :meth:`runners.tokenization.chat_template.ChatTokenizer.render` with the row's tools."""


@dataclass(frozen=True, slots=True)
class LossMask:
    """The learnt parts of a rendered chat, and what could not be learnt."""

    spans: tuple[tuple[int, int], ...]
    """Starts and ends in the text."""
    note: str = ""
    """Why fewer turns are learnt than were asked for, "" when all are."""


def trained_turns(messages: Sequence[Message], turns: str = "all") -> list[int]:
    """Return the places of the turns to learn: the assistant's words, all or only the last.

    Tools are left alone: calling one is context, like its result. ``weight`` 0 takes a turn out.
    """
    spoken = [i for i, m in enumerate(messages) if m["role"] == "assistant" and "tool_calls" not in m]
    if turns == "last":
        spoken = spoken[-1:]
    return [i for i in spoken if messages[i].get("weight", 1) != 0]


def find_trained_spans(
    messages: Sequence[Message], text: str, render: RenderChat, turns: str = "all"
) -> LossMask:
    """Return where the wanted turns stand in ``text``, the whole chat rendered.

    Raises BadInput when the last answer does not follow what the model will be asked with, so that a model
    trained on it would be asked something else, or when the template leaves a turn out.
    """
    _require_whole(messages, text)
    learn = trained_turns(messages, turns)
    if marked := _marked(messages, text, render):
        return LossMask(tuple(marked[i] for i in learn if i in marked))
    spans = {i: span for i in learn if (span := _between(messages, i, text, render))}
    missing = len(learn) - len(spans)
    if learn and learn[-1] not in spans:
        _refuse(messages, learn[-1], text, render)
    if missing:
        # A turn found before one that was rewritten would be learnt in a context that never comes about.
        return LossMask(
            (spans[learn[-1]],),
            f"the template rewrites {missing} of {len(learn)} answers once later turns follow, "
            "so only the last is learnt",
        )
    return LossMask(tuple(spans.values()))


def _between(messages: Sequence[Message], at: int, text: str, render: RenderChat) -> tuple[int, int] | None:
    """Return the part that rendering the turn adds, when what comes before and it are the text's beginning."""
    if at == 0:
        start = max(text.find(messages[0]["content"].strip()), 0)
        before = text[:start]
    else:
        before = render(messages[:at], prompt=True)
    upto = render(messages[: at + 1])
    whole = text.startswith(before) and text.startswith(upto) and len(upto) > len(before)
    return (len(before), len(upto)) if whole else None


def _marked(messages: Sequence[Message], text: str, render: RenderChat) -> dict[int, tuple[int, int]]:
    """Return the marked part of each assistant turn, {} when the template marks none or not each of them."""
    marked = render(messages, marked=True)
    if OPEN not in marked:
        return {}
    clean, *turns = marked.split(OPEN)
    found = []
    for turn in turns:
        inside, _, after = turn.partition(CLOSE)
        found.append((len(clean), len(clean) + len(inside)))
        clean += inside + after
    places = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
    return dict(zip(places, found, strict=True)) if clean == text and len(found) == len(places) else {}


def _refuse(messages: Sequence[Message], at: int, text: str, render: RenderChat) -> None:
    before = render(messages[:at], prompt=True) if at else ""
    same = next(
        (i for i, (a, b) in enumerate(zip(before, text, strict=False)) if a != b), min(len(before), len(text))
    )
    if before and same < len(before) and text.startswith(render(messages[:at])):
        raise BadInput(
            f"the chat template asks with {before[same:]!r} at the end, but the answer does not begin with it",
            "answers must begin as the template asks for them (often with the reasoning), or choose another model",
        )
    raise BadInput(
        "the chat template does not keep the last answer after its prompt",
        "the model could not be asked as it was trained; choose another model, or a template that appends turns",
    )


def _require_whole(messages: Sequence[Message], text: str) -> None:
    """Refuse a template that silently leaves out a turn that is context: instructions, a question, a tool's result."""
    for message in messages:
        said = message["content"].strip()
        escaped = said.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        if message["role"] != "assistant" and said not in text and escaped not in text:
            raise BadInput(
                f"the chat template leaves out the {message['role']} turn",
                "put its words into a user turn, or choose a model whose template shows it",
            )
