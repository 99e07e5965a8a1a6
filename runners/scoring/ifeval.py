"""Instructions that a program can verify: one small check for each kind of IFEval, in our own code.

The definitions are those of Zhou et al., "Instruction-Following Evaluation for Large Language Models" (2023,
arXiv 2311.07911), strict: the reply as it is, nothing taken off. Sentences and capital words are cut as this
project cuts them, not by nltk; capital and lower case do not also ask for English.

Prompts whose instructions a program verifies, in the IFEval format: read, drawn, and replies checked.
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


def satisfies_relation(count: int, relation: str, wanted: int) -> bool:
    """Return whether a count stands in the relation that IFEval knows: at least, or less than; else ValueError."""
    if relation not in ("at least", "less than"):
        raise ValueError(f"the relation {relation!r} is neither 'at least' nor 'less than'")
    return count >= wanted if relation == "at least" else count < wanted


def split_parts(reply: str, pattern: str) -> list[str] | None:
    """Return what a separator divides a reply into, empty ends left out; None when a part between is empty."""
    found = [part.strip() for part in re.split(pattern, reply)]
    found = found[not found[0] :]
    found = found[: len(found) - (bool(found) and not found[-1])]
    return None if "" in found else found


def _keywords(reply: str, v: CheckArguments) -> bool:
    return all(str(word).casefold() in reply.casefold() for word in _list(v["keywords"]))


def _keyword_count(reply: str, v: CheckArguments) -> bool:
    found = reply.casefold().count(str(v["keyword"]).strip().casefold())
    return satisfies_relation(found, v["relation"], int(v["frequency"]))


def _forbidden(reply: str, v: CheckArguments) -> bool:
    words = _list(v["forbidden_words"])
    return not any(re.search(rf"\b{re.escape(str(word))}\b", reply, re.I) for word in words)


def _letter_count(reply: str, v: CheckArguments) -> bool:
    found = reply.lower().count(str(v["letter"]).lower())
    return satisfies_relation(found, v["let_relation"], int(v["let_frequency"]))


def _words(reply: str, v: CheckArguments) -> bool:
    return satisfies_relation(len(re.findall(r"\w+", reply)), v["relation"], int(v["num_words"]))


def _sentences(reply: str, v: CheckArguments) -> bool:
    return satisfies_relation(len(sentences(reply)), v["relation"], int(v["num_sentences"]))


def _paragraphs(reply: str, v: CheckArguments) -> bool:
    found = split_parts(reply, r"\s?\*\*\*\s?")
    return found is not None and len(found) == int(v["num_paragraphs"])


def _first_word(reply: str, v: CheckArguments) -> bool:
    found = [part.strip() for part in re.split(r"\n\n", reply) if part.strip()]
    nth = int(v["nth_paragraph"])
    if len(found) != int(v["num_paragraphs"]) or not 1 <= nth <= len(found):
        return False
    word = re.match(r"[\"'“‘]*([^\s.,?!\"'”’]*)", found[nth - 1])
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
    found = [*re.findall(r"\*([^\n*]*)\*", reply), *re.findall(r"\*\*([^\n*]*)\*\*", reply)]
    return sum(bool(text.strip()) for text in found) >= int(v["num_highlights"])


def _sections(reply: str, v: CheckArguments) -> bool:
    found = re.findall(rf"\s?{re.escape(str(v['section_spliter']))}\s?\d+\s?", reply)
    return len(found) >= int(v["num_sections"])


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
    found = split_parts(reply, r"\*{6}")
    return found is not None and len(found) == 2 and found[0] != found[1]


def _repeated(reply: str, v: CheckArguments) -> bool:
    return reply.strip().lower().startswith(str(v["prompt_to_repeat"]).strip().lower())


def _ending(reply: str, v: CheckArguments) -> bool:
    return reply.strip().strip('"').lower().endswith(str(v["end_phrase"]).strip().lower())


def _capital_words(reply: str, v: CheckArguments) -> bool:
    found = sum(word.isupper() for word in re.findall(r"[\w'’-]+", reply))
    return satisfies_relation(found, v["capital_relation"], int(v["capital_frequency"]))


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
"""Every kind that is verified, by IFEval's name; of its 25 only language:response_language is not."""


def follows_instruction(reply: str, kind: str, values: CheckArguments) -> bool:
    """Return whether a reply follows one instruction; an empty reply follows none.

    Raises KeyError for an unknown kind or a missing value, TypeError or ValueError for a value that means nothing.
    """
    check = INSTRUCTION_CHECKS[kind]
    return check(reply, {k: v for k, v in values.items() if v is not None}) and bool(reply.strip())


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
    """The prompts of a file that can be verified, and what was left out."""

    prompts: tuple[VerifiablePrompt, ...]
    unknown: Mapping[str, int]
    """Kinds that are not verified here, with how many prompts were left out for each."""
    left_out: int


def read_prompts(path: Path | None, most: int, seed: int) -> VerifiablePrompts:
    """Return at most ``most`` prompts of a file (None: the shipped one), drawn by the seed.

    Rows are ``{"prompt", "instruction_id_list", "kwargs"}``, or a chat with these in its ``meta``. A prompt with an
    instruction of an unknown kind is left out and counted. Raises BadInput, naming the line, for a broken row.
    """
    known: list[VerifiablePrompt] = []
    unknown: Counter[str] = Counter()
    left_out = 0
    for line, row in read_rows(path or SHIPPED_PROMPTS):
        prompt = _prompt(row, f"{path or SHIPPED_PROMPTS.name}:{line}", line)
        if strange := sorted(set(prompt.kinds) - INSTRUCTION_CHECKS.keys()):
            unknown.update(strange)
            left_out += 1
        else:
            known.append(prompt)
    if not known and path is not None:
        raise BadInput(
            f"{path} holds no prompt whose instructions can be verified",
            f"known kinds: {', '.join(INSTRUCTION_CHECKS)}",
        )
    drawn = sorted(known, key=lambda p: sha256_text(f"{seed}\0{p.id}\0{p.text}"))[:most]
    return VerifiablePrompts(tuple(drawn), dict(unknown), left_out)


def _prompt(row: Mapping[str, Any], place: str, line: int) -> VerifiablePrompt:
    meta = row.get("meta")
    told = {**row, **meta} if isinstance(meta, dict) else row
    turns = row.get("messages")
    try:
        text = row["prompt"] if isinstance(row.get("prompt"), str) else turns[-1]["content"]  # type: ignore[index]
        kinds, values = told["instruction_id_list"], told["kwargs"]
        if not kinds or len(kinds) != len(values) or not str(text).strip():
            raise ValueError("it needs a prompt, and as many kwargs as instructions")
        found = VerifiablePrompt(
            str(told.get("key", line)), str(text), tuple(map(str, kinds)), tuple(map(dict, values))
        )
        for kind, given in zip(found.kinds, found.values, strict=True):
            if kind in INSTRUCTION_CHECKS:
                follows_instruction("a", kind, given)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise BadInput(f"{place}: not a row of verifiable instructions: {error!r}") from None
    return found
