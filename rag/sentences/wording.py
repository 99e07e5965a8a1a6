"""Phrases that say the same, brought to one form before sentences are compared: "costs nothing" is "is free"."""

from __future__ import annotations

import re

_PAIRS = (
    # contractions
    (r"\bcan['’]t\b", "cannot"),
    (r"\bwon['’]t\b", "will not"),
    (r"\b(\w+)n['’]t\b", r"\1 not"),
    (r"\b(you|we|they|i|he|she|it)['’]ll\b", r"\1 will"),
    (r"\b(you|we|they|i)['’]ve\b", r"\1 have"),
    (r"\b(you|we|they)['’]re\b", r"\1 are"),
    (r"\bit['’]s (?=not\b|[A-Za-z])", "it is "),
    # what is free
    (
        r"\b(?:is|are) (?:available |offered |provided )?(?:at no (?:extra |additional |further )?(?:charge"
        r"|cost)|free of charge)",
        "is free",
    ),
    (
        r"\b(?:at no (?:extra |additional |further )?(?:charge|cost)|free of charge|without (?:any )?(?:charge"
        r"|payment)|for free|for nothing)\b",
        "free",
    ),
    (r"\bcosts? (?:you |them )?nothing\b", "is free"),
    (r"\bthere (?:is|are) no (?:charges?|fees?) for\b", "free"),
    (r"\b(?:do|does) not (?:have to |need to )?pay (?:anything )?for\b", "free"),
    (r"\b(?:do|does) not (?:have to )?pay (?:anything|for anything)\b", "is free"),
    (r"\bpays? (?:nothing|no (?:fee|charge)s?)\b", "is free"),
    (r"\b(?:nobody|no one) (?:pays|has to pay|needs to pay|is charged)(?: anything)? for\b", "free"),
    (r"\b(?:will|is|are|do|does) not (?:be |get )?(?:billed|charged)(?: anything)? for\b", "free"),
    (r"\bfree (?:of|from) (?!charge\b)(?=[a-z])", "without "),
    (
        r"\bas (?:many|much|often|long) (?:\w+ ){0,4}?as (?:you|they|he or she|she|he|one) (?:likes?|wants?|wish(?:es)?)\b",
        "without limit",
    ),
    # conditions
    (r"\b(?:but )?only (?:if|when|while|as long as|once)\b", "only if"),
    (
        r"\b(?:as|so) long as\b|\bprovided(?: that)?\b|\bproviding(?: that)?\b|\bon (?:the )?condition that\b"
        r"|\bassuming(?: that)?\b",
        "if",
    ),
    (r"\bcannot\b([^.;]*?)\bunless\b", r"can\1only if"),
    (r"\b(may|must|can|is|are|was|were|be) not\b([^.;]*?)\bunless\b", r"\1\2only if"),
    (r"\bnot without\b", "only with"),
    (r"\bunless\b", "when not"),
    (
        r"\bwith the exception of\b|\bapart from\b|\bother than\b|\baside from\b|\bexcept (?:for|in|on|at|that)\b",
        "except",
    ),
    (r"\beverywhere (?:but|except)\b", "everywhere except"),
    # obligation and permission
    (
        r"\b(?:must|may|can|should)(?: not|not) (\w+ )?(?:more|longer|larger|heavier|higher|later) than\b",
        r"may \1at most",
    ),
    (
        r"\b(?:is|are) (?:left )?(?:to|at|up to) (?:the )?(?:(?:own )?discretion(?: of)?|[\w'’]+ (?:own )?discretion)\b",
        "is optional for",
    ),
    (
        r"\b(?:is|are) (?:left )?to (?:the discretion of )?([\w ]{2,20}?)['’] discretion\b",
        r"is optional for \1",
    ),
    (
        r"\bit is (?:entirely )?(?:left )?up to ((?:\w+ ){1,3}?)whether (?:or not )?",
        r"it is optional for \1whether ",
    ),
    (
        r"\b(?:can|may) (?:choose|decide)(?: for themselves| themselves)? whether(?: or not)?\b",
        "is optional whether",
    ),
    (r"\b(?:is|are) (?:under no obligation|not under (?:an|any) obligation) to\b", "need not"),
    (
        r"\bit is (?:a good idea|best|advisable|wise|recommended|advised) (?:to|that you|if you)\b",
        "you should",
    ),
    (r"\boff[- ]limits\b", "forbidden"),
    (
        r"\b(?:is|are) (?:obliged|obligated|required|forced) to\b|\b(?:has|have) got to\b|\b(?:has|have|had) to\b",
        "must",
    ),
    (r"\b(?:is|are) not (?:allowed|permitted) to\b|\b(?:is|are) (?:forbidden|prohibited) to\b", "may not"),
    (r"\bit is (?:forbidden|prohibited|not (?:allowed|permitted)) to\b", "you may not"),
    (r"\b(?:is|are) (?:allowed|permitted|free) to\b|\b(?:is|are) able to\b|\bhas the right to\b", "may"),
    (r"\bmust not\b|\bmustn['’]t\b", "may not"),
    # quantifiers
    (
        r"\b(?:the|a) (?:great |large |vast |clear )?majority of\b|\bthe (?:greater|larger|biggest) part of\b",
        "most of",
    ),
    (r"\b(?:every|each)(?: single)? one of\b|\b(?:each|all) of\b|\bevery single\b", "all"),
    (r"\bnot one of\b|\bno(?:t a)? single\b", "no"),
    # persons and their work
    (r"\b(?:is|are) (?:in charge of|responsible for)\b", "manages"),
    (r"\b(?:was|were) (?:in charge of|responsible for)\b", "managed"),
    (r"\b(?:looks? after|takes? care of)\b", "manages"),
    (r"\b(?:looked after|taken care of)\b", "managed"),
    # verbs of two words
    (r"\b(?:takes?|taking) place\b", "is held"),
    (r"\btook place\b", "was held"),
    (r"\bsign(?:s|ed)? up\b", "register"),
    (r"\bsets? off\b", "departs"),
    (r"\b(?:goes|go|going) up\b", "rises"),
    (r"\bwent up\b", "rose"),
    (r"\bgone up\b", "risen"),
    (r"\b(?:goes|go|going) down\b", "falls"),
    (r"\bwent down\b", "fell"),
    (r"\bgone down\b", "fallen"),
    (r"\bcall(?:s|ed)? off\b", "cancelled"),
    (r"\bget(?:s)? on(?: board)?(?=[.,;]|$)", "board"),
    (r"\b(?:gets?|got|gotten|gives?|given|gave|handed?|hands?) back\b", "returned"),
    (r"\bhand(?:s|ed)? in\b", "handed in"),
    (r"\b(?:pays?|paid) back\b", "refunded"),
    (r"\bset aside\b", "reserved"),
    (r"\bcomes? along\b", "accompanies"),
    (r"\btakes? part in\b", "attends"),
    (r"\btook part in\b", "attended"),
    (r"\b(?:comes?|amounts?|adds? up) to(?= (?:about |around |roughly |some |nearly |over )?[$£€]?\d)", "is"),
    (r"\b(?:came|amounted|added up) to(?= (?:about |around |roughly |some |nearly |over )?[$£€]?\d)", "was"),
    (r"\bstood at\b", "was"),
    (r"\bmakes? up\b", "is"),
    (r"\bused to be\b", "was formerly"),
    (
        r"(?<!\bis )(?<!\bare )(?<!\bbe )(?<!\bwas )(?<!\bwere )(?<!\bbeen )\bused to"
        r" (?=(?:have|take|cost|last|need|hold|number|stand|start|end|open|close)\b)",
        "formerly ",
    ),
    (r"\bis made (?:up )?of\b", "consists of"),
    (r"\b(?:every|each) day\b", "daily"),
    (r"\bin advance\b|\bbeforehand\b", "ahead"),
    (r"\bfor the first time\b|\bthe first time\b", "at the first attempt"),
    (r"\bin writing\b", "written"),
    (r"\b(?:by )?e-mail\b", "by email"),
    (r"\bgets? (?:in|into|inside)\b", "enters"),
    (r"\b(?:lets?|letting) in\b", "admits"),
    (r"\bpart[- ]?tim(?:e|ers?)\b", "part time"),
    (r"\bfull[- ]?tim(?:e|ers?)\b", "full time"),
    (r"\bthe same goes for\b", "also"),
    (r"\bas well as\b", "and"),
    (r"\b(?:a little|just|slightly|somewhat) (?:under|short of|below|less than)\b", "nearly"),
    (r"\bas well\b", "also"),
    (r"\bcomes? on top(?: of (?:that|this|it))?\b", "is excluded"),
    (r"\bno longer\b", "not now"),
    (r"\bat the latest\b", "latest"),
    (r"\b(?:has|have|had) been\b", "was"),
    (r"\b(?:is|are|was|were) situated\b", "lies"),
    (r"\bon display\b", "shown"),
    (r"\b(?:gives?|given|gave) (?:permission|consent)\b", "agrees"),
    (r"\bmoney back\b|\bmoney returned\b|\bmoney for it back\b|\bget (?:the |your )?money\b", "refund"),
    (r"\bgets? (\d[\d.]*|[a-z-]+) percent off\b", r"receives a discount of \1 percent"),
    (r"\bpercent off\b", "percent discount"),
    (r"\bhalf[- ]price\b", "half price"),
)
_PHRASES = tuple((re.compile(pattern, re.I), form) for pattern, form in _PAIRS)


def plain_wording(sentence: str) -> str:
    """Return a sentence with phrases of several words in the one form in which they are compared."""
    for pattern, form in _PHRASES:
        sentence = pattern.sub(form, sentence)
    return sentence
