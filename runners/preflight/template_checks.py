"""Checks that chat template, tokenizer and data belong together.

The wrong template in training or in serving halves accuracy without an error (LLaMA-Factory#2154, unsloth#798).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from runners.data.examples import Example, RowPlace, row_place
from runners.data.reasoning import holds_reasoning
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
"""Markers of each family of models, by which chats that were rendered already are recognised."""
STRICT_FAMILIES = ("ChatML", "Llama 3", "Gemma", "Command")
"""Families whose markers are single tokens: split into several, they mean nothing to the model."""
MAX_ROWS_EXAMINED = 1000
"""About the most rows that are rendered again, spread over the file: a mismatch of the template shows in all."""
MAX_MARKED_SHARE = 0.05
"""From this share of rows on, markers of a family are no quotations: the data was rendered already."""


def check_template(
    rows: Sequence[Example], encoded: EncodedRows, chat: ChatTokenizer
) -> Iterator[PreflightCheck]:
    """Yield the checks of the template (PF007 to PF011) on the rows and their encoding."""
    yield _template(encoded, chat)
    sample = encoded.chats[:: 1 + len(encoded.chats) // MAX_ROWS_EXAMINED]
    yield _round_trip(sample, chat)
    yield _golden_prompt(sample, chat)
    yield _control_tokens(rows, chat)
    if encoded.chats:
        yield _family(encoded.chats[0][0], chat)


def _template(encoded: EncodedRows, chat: ChatTokenizer) -> PreflightCheck:
    """Return the check that the model has a template, and that it accepts all rows."""
    if encoded.refused:
        _, error = encoded.refused[0]
        reason = error.message.partition(": ")[2] or error.message
        places = first_places(row_place(row) for row, _ in encoded.refused)
        text = f"{count_of_rows(len(encoded.refused))} cannot be rendered: {reason}"
        return PreflightCheck("PF007", "stop", text, places, error.hint)
    if not chat.own_template and encoded.chats:
        text = "the model has no chat template; a plain one is used and kept with the tuned weights"
        return PreflightCheck(
            "PF007", "warn", text, next="prefer the instruct model of this family, if there is one"
        )
    reasoned = sum(holds_reasoning(row.messages[-1]) for row, _ in encoded.chats)
    notes = list(chat.notes)
    if reasoned:
        notes.append(
            f"{count_of_rows(reasoned)} have reasoning before the reply, which is learnt where the template shows it and "
            "cut from answers before they are scored"
        )
    text = "; ".join(["the model's own; it is kept with the tuned weights", *notes])
    return PreflightCheck("PF007", "ok", text)


def _round_trip(pairs: Sequence[ExampleTokens], chat: ChatTokenizer) -> PreflightCheck:
    """Return the check that decoding the tokens gives the text back; some tokenizers change spaces only."""
    changed, spaces_changed = [], False
    for row, encoded in pairs:
        text = chat.text_of(row)
        decoded = chat.tokenizer.decode(list(encoded.ids), skip_special_tokens=False)
        spaces_changed = spaces_changed or decoded != text
        if "".join(decoded.split()) != "".join(text.split()):
            changed.append(row_place(row))
    if not changed:
        but = ", but for spaces" if spaces_changed else ""
        return PreflightCheck(
            "PF008", "ok", f"text to tokens to text gives {count_of_rows(len(pairs))} back as they were{but}"
        )
    return PreflightCheck(
        "PF008",
        "warn",
        f"{count_of_rows(len(changed))} are not the same after text to tokens to text",
        first_places(changed),
        "look at them with --show: the tokenizer lacks or changes some characters",
    )


def _golden_prompt(pairs: Sequence[ExampleTokens], chat: ChatTokenizer) -> PreflightCheck:
    """Return the check that each row begins with exactly the tokens of the prompt used in generation."""
    different = []
    for row, encoded in pairs:
        prompt = chat.encode(chat.render(chat.adapt(row.messages)[:-1], prompt=True, tools=row.tools))
        if list(encoded.ids[: len(prompt)]) != prompt:
            different.append(row_place(row))
    if not different:
        return PreflightCheck("PF009", "ok", "training and generation begin with the same tokens")
    return PreflightCheck(
        "PF009",
        "warn",
        f"{count_of_rows(len(different))} begin with other tokens than the prompt asked later",
        first_places(different),
        "give the model folder a template whose generation prompt ends where the answer's tokens begin",
    )


def _control_tokens(rows: Sequence[Example], chat: ChatTokenizer) -> PreflightCheck:
    """Return the check that no message contains control tokens or markers of a template as text."""
    findings, places, stop = [], list[RowPlace](), False
    if own := _rows_containing(rows, chat.control_tokens):
        findings.append(f"the model's own control tokens as text in {count_of_rows(len(own))}")
        places, stop = own, True
    for name, marks in TEMPLATE_FAMILIES.items():
        others = tuple(mark for mark in marks if mark not in chat.control_tokens)
        if marked := _rows_containing(rows, others):
            findings.append(f"marks of {name} chats as text in {count_of_rows(len(marked))}")
            places, stop = [*places, *marked], stop or len(marked) >= MAX_MARKED_SHARE * len(rows)
    if not findings:
        return PreflightCheck("PF010", "ok", "no chat marks inside the messages")
    return PreflightCheck(
        "PF010",
        "stop" if stop else "warn",
        "; ".join(findings),
        first_places(places),
        "give plain messages: the model's own template adds its marks",
    )


def _rows_containing(rows: Sequence[Example], marks: Sequence[str]) -> list[RowPlace]:
    """Return the rows in which a message contains one of the markers."""
    return [
        row_place(row)
        for row in rows
        if any(mark in turn["content"] for turn in row.messages for mark in marks)
    ]


def _family(row: Example, chat: ChatTokenizer) -> PreflightCheck:
    """Return the check that the tokenizer has the markers that the template writes."""
    text = chat.render(row.messages, prompt=True, tools=row.tools)
    for family in STRICT_FAMILIES:
        missing = [
            mark
            for mark in TEMPLATE_FAMILIES[family]
            if mark in text and chat.tokenizer.token_to_id(mark) is None
        ]
        if missing:
            return PreflightCheck(
                "PF011",
                "stop",
                f"the template writes {missing[0]}, which this tokenizer has no token for",
                next=f"it is a {family} template; put the one that belongs to this model into its folder",
            )
    return PreflightCheck("PF011", "ok", "template and tokenizer know the same marks")
