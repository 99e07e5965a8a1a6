"""Whether chat template, tokenizer and data belong together: the mismatch that costs most and shows least.

The wrong template at training or at serving halves accuracy without an error (LLaMA-Factory#2154, unsloth#798).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from runners.data.examples import Example, RowPlace, row_place
from runners.preflight.report import PreflightCheck, count_of_rows, first_places
from runners.tokenization.chat_template import ChatTokenizer
from runners.tokenization.encoding import EncodedRows, ExampleTokens

TEMPLATE_FAMILIES: Mapping[str, tuple[str, ...]] = {
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
STRICT_FAMILIES = ("ChatML", "Llama 3", "Gemma", "Command")
"""Families whose marks are single tokens: in pieces they mean nothing to the model."""
MAX_ROWS_EXAMINED = 1000
"""Rows, spread over the file, that are rendered once more: a mismatch is the template's and shows in all."""
MAX_MARKED_SHARE = 0.05
"""From this share of rows on, marks of a family are no quotation: the data was rendered before."""


def check_template(
    rows: Sequence[Example], found: EncodedRows, chat: ChatTokenizer
) -> Iterator[PreflightCheck]:
    """Yield the checks of the template (PF007 to PF011) over rows and what became of them as tokens."""
    yield _template(found, chat)
    some = found.chats[:: 1 + len(found.chats) // MAX_ROWS_EXAMINED]
    yield _round_trip(some, chat)
    yield _golden(some, chat)
    yield _control(rows, chat)
    if found.chats:
        yield _marks(found.chats[0][0], chat)


def _template(found: EncodedRows, chat: ChatTokenizer) -> PreflightCheck:
    if found.refused:
        _, why = found.refused[0]
        reason, count = why.message.partition(": ")[2] or why.message, count_of_rows(len(found.refused))
        spoilt = first_places(row_place(row) for row, _ in found.refused)
        return PreflightCheck("PF007", "stop", f"{count} cannot be rendered: {reason}", spoilt, why.hint)
    if not chat.own_template and found.chats:
        text = "the model has no chat template; a plain one is used and kept with the tuned weights"
        return PreflightCheck(
            "PF007", "warn", text, next="prefer the instruct model of this family, if there is one"
        )
    return PreflightCheck("PF007", "ok", "the model's own; it is kept with the tuned weights")


def _round_trip(pairs: Sequence[ExampleTokens], chat: ChatTokenizer) -> PreflightCheck:
    """Render, tokenise, decode: what differs is what the tokenizer cannot say; some only set spaces anew."""
    lost, spaced = [], False
    for row, encoded in pairs:
        text = chat.render(row.messages, tools=row.tools)
        back = chat.tokenizer.decode(list(encoded.ids), skip_special_tokens=False)
        spaced = spaced or back != text
        if "".join(back.split()) != "".join(text.split()):
            lost.append(row_place(row))
    if not lost:
        but = ", but for spaces" if spaced else ""
        return PreflightCheck(
            "PF008", "ok", f"text to tokens to text gives {count_of_rows(len(pairs))} back as they were{but}"
        )
    return PreflightCheck(
        "PF008",
        "warn",
        f"{count_of_rows(len(lost))} are not the same after text to tokens to text",
        first_places(lost),
        "look at them with --show: the tokenizer lacks or changes some characters",
    )


def _golden(pairs: Sequence[ExampleTokens], chat: ChatTokenizer) -> PreflightCheck:
    """Compare each row's beginning with the prompt that will be asked, token by token."""
    apart = []
    for row, encoded in pairs:
        asked = chat.encode(chat.render(row.messages[:-1], prompt=True, tools=row.tools))
        if list(encoded.ids[: len(asked)]) != asked:
            apart.append(row_place(row))
    if not apart:
        return PreflightCheck("PF009", "ok", "training and generation begin with the same tokens")
    return PreflightCheck(
        "PF009",
        "warn",
        f"{count_of_rows(len(apart))} begin with other tokens than the prompt asked later",
        first_places(apart),
        "give the model folder a template whose generation prompt ends where the answer's tokens begin",
    )


def _control(rows: Sequence[Example], chat: ChatTokenizer) -> PreflightCheck:
    told, lines, stop = [], list[RowPlace](), False
    if own := _holding(rows, chat.control_tokens):
        told.append(f"the model's own control tokens as text in {count_of_rows(len(own))}")
        lines, stop = own, True
    for name, marks in TEMPLATE_FAMILIES.items():
        others = tuple(mark for mark in marks if mark not in chat.control_tokens)
        if marked := _holding(rows, others):
            told.append(f"marks of {name} chats as text in {count_of_rows(len(marked))}")
            lines, stop = [*lines, *marked], stop or len(marked) >= MAX_MARKED_SHARE * len(rows)
    if not told:
        return PreflightCheck("PF010", "ok", "no chat marks inside the messages")
    return PreflightCheck(
        "PF010",
        "stop" if stop else "warn",
        "; ".join(told),
        first_places(lines),
        "give plain messages: the model's own template adds its marks",
    )


def _holding(rows: Sequence[Example], marks: Sequence[str]) -> list[RowPlace]:
    return [
        row_place(r) for r in rows if any(mark in turn["content"] for turn in r.messages for mark in marks)
    ]


def _marks(row: Example, chat: ChatTokenizer) -> PreflightCheck:
    text = chat.render(row.messages, prompt=True, tools=row.tools)
    for family in STRICT_FAMILIES:
        broken = [t for t in TEMPLATE_FAMILIES[family] if t in text and chat.tokenizer.token_to_id(t) is None]
        if broken:
            return PreflightCheck(
                "PF011",
                "stop",
                f"the template writes {broken[0]}, which this tokenizer has no token for",
                next=f"it is a {family} template; put the one that belongs to this model into its folder",
            )
    return PreflightCheck("PF011", "ok", "template and tokenizer know the same marks")
