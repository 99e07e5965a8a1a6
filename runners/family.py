"""Whether chat template, tokenizer and data belong together: the mismatch that costs most and shows least.

The wrong template at training or at serving halves accuracy without an error (LLaMA-Factory#2154, unsloth#798).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from runners.chat import Chat
from runners.complaints import Check, places, rows_of
from runners.example import Example, Place, place
from runners.tokenised import Pair, Rows

FAMILIES: Mapping[str, tuple[str, ...]] = {
    "ChatML": ("<|im_start|>", "<|im_end|>"),
    "Llama 3": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|begin_of_text|>"),
    "Llama 2 and Mistral": ("[INST]", "[/INST]", "<<SYS>>"),
    "Gemma": ("<start_of_turn>", "<end_of_turn>"),
    "Zephyr and Phi": ("<|user|>", "<|assistant|>", "<|system|>"),
    "DeepSeek": ("<｜User｜>", "<｜Assistant｜>"),
    "Command": ("<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
    "Alpaca": ("### Instruction:", "### Response:"),
}
"""The marks by which chats that were already rendered for a family of models are recognised."""
WHOLE = ("ChatML", "Llama 3", "Gemma", "Command")
"""Families whose marks are single tokens: in pieces they mean nothing to the model."""
LOOKED_AT = 1000
"""Rows, spread over the file, that are rendered once more: a mismatch is the template's and shows in all."""
MOST_MARKED = 0.05
"""From this share of rows on, marks of a family are no quotation: the data was rendered before."""


def checks(rows: Sequence[Example], found: Rows, chat: Chat) -> Iterator[Check]:
    """Yield the checks of the template (PF007 to PF011) over rows and what became of them as tokens."""
    yield _template(found, chat)
    some = found.chats[:: 1 + len(found.chats) // LOOKED_AT]
    yield _round_trip(some, chat)
    yield _golden(some, chat)
    yield _control(rows, chat)
    if found.chats:
        yield _marks(found.chats[0][0], chat)


def _template(found: Rows, chat: Chat) -> Check:
    if found.refused:
        _, why = found.refused[0]
        reason, count = why.message.partition(": ")[2] or why.message, rows_of(len(found.refused))
        spoilt = places(place(row) for row, _ in found.refused)
        return Check("PF007", "stop", f"{count} cannot be rendered: {reason}", spoilt, why.hint)
    if not chat.own_template and found.chats:
        text = "the model has no chat template; a plain one is used and kept with the tuned weights"
        return Check("PF007", "warn", text, next="prefer the instruct model of this family, if there is one")
    return Check("PF007", "ok", "the model's own; it is kept with the tuned weights")


def _round_trip(pairs: Sequence[Pair], chat: Chat) -> Check:
    """Render, tokenise, decode: what differs is what the tokenizer cannot say; some only set spaces anew."""
    lost, spaced = [], False
    for row, encoded in pairs:
        text = chat.render(row.messages, tools=row.tools)
        back = chat.tokenizer.decode(list(encoded.ids), skip_special_tokens=False)
        spaced = spaced or back != text
        if "".join(back.split()) != "".join(text.split()):
            lost.append(place(row))
    if not lost:
        but = ", but for spaces" if spaced else ""
        return Check(
            "PF008", "ok", f"text to tokens to text gives {rows_of(len(pairs))} back as they were{but}"
        )
    return Check(
        "PF008", "warn", f"{rows_of(len(lost))} are not the same after text to tokens to text", places(lost),
        "look at them with --show: the tokenizer lacks or changes some characters",
    )  # fmt: skip


def _golden(pairs: Sequence[Pair], chat: Chat) -> Check:
    """Compare each row's beginning with the prompt that will be asked, token by token."""
    apart = []
    for row, encoded in pairs:
        asked = chat.encode(chat.render(row.messages[:-1], prompt=True, tools=row.tools))
        if list(encoded.ids[: len(asked)]) != asked:
            apart.append(place(row))
    if not apart:
        return Check("PF009", "ok", "training and generation begin with the same tokens")
    return Check(
        "PF009", "warn", f"{rows_of(len(apart))} begin with other tokens than the prompt asked later", places(apart),
        "give the model folder a template whose generation prompt ends where the answer's tokens begin",
    )  # fmt: skip


def _control(rows: Sequence[Example], chat: Chat) -> Check:
    told, lines, stop = [], list[Place](), False
    if own := _holding(rows, chat.control_tokens):
        told.append(f"the model's own control tokens as text in {rows_of(len(own))}")
        lines, stop = own, True
    for name, marks in FAMILIES.items():
        others = tuple(mark for mark in marks if mark not in chat.control_tokens)
        if marked := _holding(rows, others):
            told.append(f"marks of {name} chats as text in {rows_of(len(marked))}")
            lines, stop = [*lines, *marked], stop or len(marked) >= MOST_MARKED * len(rows)
    if not told:
        return Check("PF010", "ok", "no chat marks inside the messages")
    return Check(
        "PF010", "stop" if stop else "warn", "; ".join(told), places(lines),
        "give plain messages: the model's own template adds its marks",
    )  # fmt: skip


def _holding(rows: Sequence[Example], marks: Sequence[str]) -> list[Place]:
    return [place(r) for r in rows if any(mark in turn["content"] for turn in r.messages for mark in marks)]


def _marks(row: Example, chat: Chat) -> Check:
    text = chat.render(row.messages, prompt=True, tools=row.tools)
    for family in WHOLE:
        broken = [t for t in FAMILIES[family] if t in text and chat.tokenizer.token_to_id(t) is None]
        if broken:
            return Check(
                "PF011", "stop", f"the template writes {broken[0]}, which this tokenizer has no token for",
                next=f"it is a {family} template; put the one that belongs to this model into its folder",
            )  # fmt: skip
    return Check("PF011", "ok", "template and tokenizer know the same marks")
