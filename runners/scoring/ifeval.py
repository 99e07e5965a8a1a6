"""Instructions that a program can verify, in the IFEval format: prompts are read and sampled, replies are checked.

There is one check for each instruction kind in :data:`INSTRUCTION_CHECKS`, in our own code. The definitions
are those of Zhou et al., "Instruction-Following Evaluation for Large Language Models" (2023, arXiv
2311.07911), in their strict form: the reply is checked as it is, nothing is taken off. Two details differ
from the reference implementation: sentences and capital words are split by this project's own rules instead
of nltk, and the kinds for capital and lower case do not also require English.

:func:`read_prompts` reads a file of prompts, :meth:`VerifiablePrompt.followed` checks a reply.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag.errors import BadInput
from rag.files import sha256_text
from rag.text.words import sentences
from runners.data.tabular import read_rows

CheckArguments = Mapping[str, Any]
InstructionCheck = Callable[[str, CheckArguments], bool]
SHIPPED_PROMPTS = Path(__file__).parents[1] / "general" / "instructions.jsonl"
"""Forty prompts of our own that a short reply can follow."""


@dataclass(frozen=True, slots=True)
class VerifiablePrompt:
    """One prompt with the instructions that its reply must follow."""

    id: str
    text: str
    kinds: tuple[str, ...]
    values: tuple[Mapping[str, Any], ...]
    """The parameters of each instruction."""

    def followed(self, reply: str) -> bool:
        """Return whether a reply follows every instruction (IFEval's strict accuracy per prompt)."""
        return all(
            follows_instruction(reply, kind, v) for kind, v in zip(self.kinds, self.values, strict=True)
        )


@dataclass(frozen=True, slots=True)
class VerifiablePrompts:
    """The prompts of a file that can be verified, and how many were left out."""

    prompts: tuple[VerifiablePrompt, ...]
    unknown: Mapping[str, int]
    """Instruction kinds without a check here, with the number of prompts left out for each."""
    left_out: int


def read_prompts(path: Path | None, most: int, seed: int) -> VerifiablePrompts:
    """Return at most ``most`` prompts of a file, sampled by the seed.

    Rows are ``{"prompt", "instruction_id_list", "kwargs"}``, or a chat with these keys in its ``meta``. A
    prompt with an instruction of an unknown kind is left out and counted. The sample does not depend on the
    order of the rows.

    Args:
        path: the file; None reads the shipped prompts.
        most: the most prompts to return.
        seed: the seed of the sample.

    Raises:
        BadInput: a row is broken (the message names its line), or no prompt of the file can be verified.
    """
    known: list[VerifiablePrompt] = []
    unknown: Counter[str] = Counter()
    left_out = 0
    for line, row in read_rows(path or SHIPPED_PROMPTS):
        prompt = _parse_row(row, f"{path or SHIPPED_PROMPTS.name}:{line}", line)
        if unknown_kinds := sorted(set(prompt.kinds) - INSTRUCTION_CHECKS.keys()):
            unknown.update(unknown_kinds)
            left_out += 1
        else:
            known.append(prompt)
    if not known and path is not None:
        raise BadInput(
            f"{path} has no prompt whose instructions can be verified",
            f"known kinds: {', '.join(INSTRUCTION_CHECKS)}",
        )
    drawn = sorted(known, key=lambda prompt: sha256_text(f"{seed}\0{prompt.id}\0{prompt.text}"))[:most]
    return VerifiablePrompts(tuple(drawn), dict(unknown), left_out)


def follows_instruction(reply: str, kind: str, values: CheckArguments) -> bool:
    """Return whether a reply follows one instruction; an empty reply follows none.

    Args:
        reply: the model's reply.
        kind: the instruction's kind, a key of :data:`INSTRUCTION_CHECKS`.
        values: the instruction's parameters; those that are None are ignored.

    Raises:
        KeyError: unknown kind, or a missing parameter.
        TypeError, ValueError: a parameter of the wrong type or value.
    """
    check = INSTRUCTION_CHECKS[kind]
    return check(reply, {k: v for k, v in values.items() if v is not None}) and bool(reply.strip())


def satisfies_relation(count: int, relation: str, wanted: int) -> bool:
    """Return whether a count satisfies one of IFEval's two relations.

    Args:
        count: what was counted in the reply.
        relation: "at least" or "less than"; anything else raises ValueError.
        wanted: the number that the count is compared with.
    """
    if relation not in ("at least", "less than"):
        raise ValueError(f"the relation {relation!r} is neither 'at least' nor 'less than'")
    return count >= wanted if relation == "at least" else count < wanted


def split_parts(reply: str, pattern: str) -> list[str] | None:
    """Split a reply at a separator; empty parts at both ends are left out.

    Returns:
        The stripped parts, or None when a part between two others is empty.
    """
    parts = [part.strip() for part in re.split(pattern, reply)]
    parts = parts[not parts[0] :]
    parts = parts[: len(parts) - (bool(parts) and not parts[-1])]
    return None if "" in parts else parts


def _parse_row(row: Mapping[str, Any], location: str, line: int) -> VerifiablePrompt:
    meta = row.get("meta")
    fields = {**row, **meta} if isinstance(meta, dict) else row
    turns = row.get("messages")
    try:
        text = row["prompt"] if isinstance(row.get("prompt"), str) else turns[-1]["content"]  # type: ignore[index]
        kinds, values = fields["instruction_id_list"], fields["kwargs"]
        if not kinds or len(kinds) != len(values) or not str(text).strip():
            raise ValueError("it needs a prompt, and as many kwargs as instructions")
        prompt = VerifiablePrompt(
            str(fields.get("key", line)), str(text), tuple(map(str, kinds)), tuple(map(dict, values))
        )
        for kind, arguments in zip(prompt.kinds, prompt.values, strict=True):
            if kind in INSTRUCTION_CHECKS:
                follows_instruction("a", kind, arguments)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise BadInput(f"{location}: not a row of verifiable instructions: {error!r}") from None
    return prompt


def _keywords(reply: str, v: CheckArguments) -> bool:
    return all(str(word).casefold() in reply.casefold() for word in _list(v["keywords"]))


def _keyword_count(reply: str, v: CheckArguments) -> bool:
    count = reply.casefold().count(str(v["keyword"]).strip().casefold())
    return satisfies_relation(count, v["relation"], int(v["frequency"]))


def _forbidden(reply: str, v: CheckArguments) -> bool:
    words = _list(v["forbidden_words"])
    return not any(re.search(rf"\b{re.escape(str(word))}\b", reply, re.I) for word in words)


def _letter_count(reply: str, v: CheckArguments) -> bool:
    count = reply.lower().count(str(v["letter"]).lower())
    return satisfies_relation(count, v["let_relation"], int(v["let_frequency"]))


def _words(reply: str, v: CheckArguments) -> bool:
    return satisfies_relation(len(re.findall(r"\w+", reply)), v["relation"], int(v["num_words"]))


def _sentences(reply: str, v: CheckArguments) -> bool:
    return satisfies_relation(len(sentences(reply)), v["relation"], int(v["num_sentences"]))


def _paragraphs(reply: str, v: CheckArguments) -> bool:
    parts = split_parts(reply, r"\s?\*\*\*\s?")
    return parts is not None and len(parts) == int(v["num_paragraphs"])


def _first_word(reply: str, v: CheckArguments) -> bool:
    paragraphs = [part.strip() for part in re.split(r"\n\n", reply) if part.strip()]
    nth = int(v["nth_paragraph"])
    if len(paragraphs) != int(v["num_paragraphs"]) or not 1 <= nth <= len(paragraphs):
        return False
    word = re.match(r"[\"'“‘]*([^\s.,?!\"'”’]*)", paragraphs[nth - 1])
    return word is not None and word[1].casefold() == str(v["first_word"]).casefold()


def _placeholders(reply: str, v: CheckArguments) -> bool:
    return len(re.findall(r"\[.*?\]", reply)) >= int(v["num_placeholders"])


def _postscript(reply: str, v: CheckArguments) -> bool:
    marker = str(v["postscript_marker"]).strip().lower()
    spaced = (
        r"\.\s?".join(map(re.escape, marker.split("."))) if marker.startswith("p.") else re.escape(marker)
    )
    return re.search(rf"\s*{spaced}.*$", reply.lower(), re.M) is not None


def _bullets(reply: str, v: CheckArguments) -> bool:
    return len(re.findall(r"^\s*(?:\*[^*\n]|-).*$", reply, re.M)) == int(v["num_bullets"])


def _highlights(reply: str, v: CheckArguments) -> bool:
    highlights = [*re.findall(r"\*([^\n*]*)\*", reply), *re.findall(r"\*\*([^\n*]*)\*\*", reply)]
    return sum(bool(text.strip()) for text in highlights) >= int(v["num_highlights"])


def _sections(reply: str, v: CheckArguments) -> bool:
    markers = re.findall(rf"\s?{re.escape(str(v['section_spliter']))}\s?\d+\s?", reply)
    return len(markers) >= int(v["num_sections"])


def _choice(reply: str, v: CheckArguments) -> bool:
    return any(f"My answer is {word}." in reply for word in ("yes", "no", "maybe"))


def _json(reply: str, v: CheckArguments) -> bool:
    bare = re.sub(r"^```(?:json)?|```$", "", reply.strip(), flags=re.I)
    try:
        json.loads(bare)
    except (ValueError, RecursionError):
        return False
    return True


def _title(reply: str, v: CheckArguments) -> bool:
    return any(text.strip("<> \t") for text in re.findall(r"<<[^\n]+>>", reply))


def _two_replies(reply: str, v: CheckArguments) -> bool:
    parts = split_parts(reply, r"\*{6}")
    return parts is not None and len(parts) == 2 and parts[0] != parts[1]


def _repeated(reply: str, v: CheckArguments) -> bool:
    return reply.strip().lower().startswith(str(v["prompt_to_repeat"]).strip().lower())


def _ending(reply: str, v: CheckArguments) -> bool:
    return reply.strip().strip('"').lower().endswith(str(v["end_phrase"]).strip().lower())


def _capital_words(reply: str, v: CheckArguments) -> bool:
    count = sum(word.isupper() for word in re.findall(r"[\w'’-]+", reply))
    return satisfies_relation(count, v["capital_relation"], int(v["capital_frequency"]))


def _quoted(reply: str, v: CheckArguments) -> bool:
    bare = reply.strip()
    return len(bare) > 1 and bare[0] == bare[-1] == '"'


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is no list of words")
    return value


INSTRUCTION_CHECKS: Mapping[str, InstructionCheck] = {
    "keywords:existence": _keywords,
    "keywords:frequency": _keyword_count,
    "keywords:forbidden_words": _forbidden,
    "keywords:letter_frequency": _letter_count,
    "length_constraints:number_words": _words,
    "length_constraints:number_sentences": _sentences,
    "length_constraints:number_paragraphs": _paragraphs,
    "length_constraints:nth_paragraph_first_word": _first_word,
    "detectable_content:number_placeholders": _placeholders,
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:multiple_sections": _sections,
    "detectable_format:constrained_response": _choice,
    "detectable_format:json_format": _json,
    "detectable_format:title": _title,
    "combination:two_responses": _two_replies,
    "combination:repeat_prompt": _repeated,
    "startend:end_checker": _ending,
    "startend:quotation": _quoted,
    "change_case:capital_word_frequency": _capital_words,
    "change_case:english_capital": lambda reply, v: reply.isupper(),
    "change_case:english_lowercase": lambda reply, v: reply.islower(),
    "punctuation:no_comma": lambda reply, v: "," not in reply,
}
"""The check of each kind, by IFEval's name; of its 25 kinds only language:response_language is missing."""
