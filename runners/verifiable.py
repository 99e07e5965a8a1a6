"""Instructions that a program can verify: one small check for each kind of IFEval, in our own code.

The definitions are those of Zhou et al., "Instruction-Following Evaluation for Large Language Models" (2023,
arXiv 2311.07911), strict: the reply as it is, nothing taken off. Sentences and capital words are cut as this
project cuts them, not by nltk; capital and lower case do not also ask for English.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from rag.words import sentences

Values = Mapping[str, Any]
Check = Callable[[str, Values], bool]


def related(count: int, relation: str, wanted: int) -> bool:
    """Return whether a count stands in the relation that IFEval knows: at least, or less than; else ValueError."""
    if relation not in ("at least", "less than"):
        raise ValueError(f"the relation {relation!r} is neither 'at least' nor 'less than'")
    return count >= wanted if relation == "at least" else count < wanted


def parts(reply: str, pattern: str) -> list[str] | None:
    """Return what a separator divides a reply into, empty ends left out; None when a part between is empty."""
    found = [part.strip() for part in re.split(pattern, reply)]
    found = found[not found[0] :]
    found = found[: len(found) - (bool(found) and not found[-1])]
    return None if "" in found else found


def _keywords(reply: str, v: Values) -> bool:
    return all(str(word).casefold() in reply.casefold() for word in _list(v["keywords"]))


def _keyword_count(reply: str, v: Values) -> bool:
    found = reply.casefold().count(str(v["keyword"]).strip().casefold())
    return related(found, v["relation"], int(v["frequency"]))


def _forbidden(reply: str, v: Values) -> bool:
    words = _list(v["forbidden_words"])
    return not any(re.search(rf"\b{re.escape(str(word))}\b", reply, re.I) for word in words)


def _letter_count(reply: str, v: Values) -> bool:
    found = reply.lower().count(str(v["letter"]).lower())
    return related(found, v["let_relation"], int(v["let_frequency"]))


def _words(reply: str, v: Values) -> bool:
    return related(len(re.findall(r"\w+", reply)), v["relation"], int(v["num_words"]))


def _sentences(reply: str, v: Values) -> bool:
    return related(len(sentences(reply)), v["relation"], int(v["num_sentences"]))


def _paragraphs(reply: str, v: Values) -> bool:
    found = parts(reply, r"\s?\*\*\*\s?")
    return found is not None and len(found) == int(v["num_paragraphs"])


def _first_word(reply: str, v: Values) -> bool:
    found = [part.strip() for part in re.split(r"\n\n", reply) if part.strip()]
    nth = int(v["nth_paragraph"])
    if len(found) != int(v["num_paragraphs"]) or not 1 <= nth <= len(found):
        return False
    word = re.match(r"[\"'“‘]*([^\s.,?!\"'”’]*)", found[nth - 1])
    return word is not None and word[1].casefold() == str(v["first_word"]).casefold()


def _placeholders(reply: str, v: Values) -> bool:
    return len(re.findall(r"\[.*?\]", reply)) >= int(v["num_placeholders"])


def _postscript(reply: str, v: Values) -> bool:
    marker = str(v["postscript_marker"]).strip().lower()
    spaced = (
        r"\.\s?".join(map(re.escape, marker.split("."))) if marker.startswith("p.") else re.escape(marker)
    )
    return re.search(rf"\s*{spaced}.*$", reply.lower(), re.M) is not None


def _bullets(reply: str, v: Values) -> bool:
    return len(re.findall(r"^\s*(?:\*[^*\n]|-).*$", reply, re.M)) == int(v["num_bullets"])


def _highlights(reply: str, v: Values) -> bool:
    found = [*re.findall(r"\*([^\n*]*)\*", reply), *re.findall(r"\*\*([^\n*]*)\*\*", reply)]
    return sum(bool(text.strip()) for text in found) >= int(v["num_highlights"])


def _sections(reply: str, v: Values) -> bool:
    found = re.findall(rf"\s?{re.escape(str(v['section_spliter']))}\s?\d+\s?", reply)
    return len(found) >= int(v["num_sections"])


def _choice(reply: str, v: Values) -> bool:
    return any(f"My answer is {word}." in reply for word in ("yes", "no", "maybe"))


def _json(reply: str, v: Values) -> bool:
    bare = re.sub(r"^```(?:json)?|```$", "", reply.strip(), flags=re.I)
    try:
        json.loads(bare)
    except (ValueError, RecursionError):
        return False
    return True


def _title(reply: str, v: Values) -> bool:
    return any(text.strip("<> \t") for text in re.findall(r"<<[^\n]+>>", reply))


def _two_replies(reply: str, v: Values) -> bool:
    found = parts(reply, r"\*{6}")
    return found is not None and len(found) == 2 and found[0] != found[1]


def _repeated(reply: str, v: Values) -> bool:
    return reply.strip().lower().startswith(str(v["prompt_to_repeat"]).strip().lower())


def _ending(reply: str, v: Values) -> bool:
    return reply.strip().strip('"').lower().endswith(str(v["end_phrase"]).strip().lower())


def _capital_words(reply: str, v: Values) -> bool:
    found = sum(word.isupper() for word in re.findall(r"[\w'’-]+", reply))
    return related(found, v["capital_relation"], int(v["capital_frequency"]))


def _quoted(reply: str, v: Values) -> bool:
    bare = reply.strip()
    return len(bare) > 1 and bare[0] == bare[-1] == '"'


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is no list of words")
    return value


KINDS: Mapping[str, Check] = {
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


def follows(reply: str, kind: str, values: Values) -> bool:
    """Return whether a reply follows one instruction; an empty reply follows none.

    Raises KeyError for an unknown kind or a missing value, TypeError or ValueError for a value that means nothing.
    """
    check = KINDS[kind]
    return check(reply, {k: v for k, v in values.items() if v is not None}) and bool(reply.strip())
