"""Wordings of "the documents do not hold it" and "I cannot find, know or answer it", as patterns for one clause.

Each pattern has the documents, the speaker or the answer as its subject and an inability to find, know or answer as its
verb: "we do not have parking", "the guide is not included in the price" and "I am not able to offer refunds" have one or
the other only. English is covered broadly; German, Spanish, French, Italian, Portuguese and Dutch in their usual wordings.

The patterns are matched against a clause in lower case with straight apostrophes (:func:`refuses_in_words`). Repetition
is bounded everywhere, so that the time is linear in the length of the clause.
"""

from __future__ import annotations

import re
from functools import cache

_SOURCE = (
    r"(?:notes|documents?|docs?|documentation|passages?|records|files|pages?|context|sources?|guides?"
    r"|papers?|handbooks?|manuals?|knowledge base|materials?|articles?|excerpts?|paragraphs?|texts?|database"
    r"|faqs?|reviews|catalogues?|archives?|websites?|sheets?|leaflets?|brochures?|wiki|reports?|snippets?"
    r"|sections?|books?|bulletins?|folders?|binders?|ledgers?|transcripts?|minutes|booklets?|pamphlets?"
    r"|paperwork|corpus|resources|references|price lists?|fact sheets?|readme|specifications?|write-ups?"
    r"|logbooks?|rulebooks?|data|information (?:provided|given|available|at hand|supplied|i have|we have|i "
    r"was given)|information)"
)
# A noun after it would make it a part of another thing: "the guide price", "the records office".
_SOURCE_END = (
    r"(?=\s*(?:[.,;:!()]|$)|\s+(?:i|we|you|that|which|at|of|for|on|about|here|so|and|or|but|yet|as|in|by|is"
    r"|are|to|from|with|provided|available|given|held|supplied|above|below|either|today|now|yet|currently"
    r"|though|unfortunately|how|when|where|who|what|whether|if|why|because|since|any|anywhere)\b)"
)
_THE = (
    r"(?:the|our|my|these|those|this|any|any of the|any of our|all|all of our|your|its|of the|of our|either "
    r"of the)"
)
_NAMED_SOURCE = rf"{_THE}\s+(?:[\w'&-]+\s+){{0,3}}?{_SOURCE}\b"
_OF_SOURCE = rf"{_NAMED_SOURCE}{_SOURCE_END}"
# Sources that hardly are anything else; "guide", "page", "book" and "data" often are.
_PAPERS = (
    r"(?:notes|documents?|documentation|passages?|excerpts?|texts?|context|papers|records|sources|handbook"
    r"|manual|knowledge base|materials?|files|articles?|paragraphs?|transcripts?|paperwork|information "
    r"(?:provided|given|available|i have|we have))"
)
_NAMED_PAPERS = (
    rf"(?:the|our|my|these|those|this|any of the|any of our|all)\s+(?:[\w'&-]+\s+){{0,3}}?{_PAPERS}\b"
)
_NEGATED = r"(?:\w+n't|not|cannot|never|nothing|neither|none|nowhere|no|unable|nobody)"
_TELLS = (
    r"(?:(?:mention|state|specif|tell|answer|address|discuss|describ|explain|indicat|reveal|contain|clarif"
    r"|detail|touch|help)\w*|say|says|know|knows|cover|covers)"
)
_LEARNS = (
    r"(?:(?:mention|stat|specif|answer|address|discuss|describ|explain|indicat|reveal|record|contain"
    r"|determin|locat|clarif|deduc|infer|conclud|establish)\w*|say|said|tell|told|find|found|know|known"
    r"|aware|see|seen|learn|written|covered|noted|come across)"
)
_IN_SOURCE = (
    rf"(?:in|by|from|among|within|inside|on|through|across|anywhere in)\s+(?:{_OF_SOURCE}|what (?:i|we) "
    r"(?:have|hold|know|was given))"
)
_NOT = (
    r"(?:can't|(?:do|does|did|can|could|will|would|has|have|had|is|are|was|were)(?: not|n't)|cannot|can not"
    r"|never|nowhere|fails? to|failed to)"
)
_ADVERB = (
    r"(?:\s(?:really|just|honestly|simply|actually|currently|even|yet|also|exactly|explicitly|clearly"
    r"|specifically|directly|seem to|appear to|unfortunately|sadly|go (?:so|as) far as to|bother to|care to"
    r"|help (?:me|us) to|once|ever|get to|come to|at any point))?"
)
_INFORMATION = (
    r"(?:information|info|details?|data|answers?|mentions?|references?|documentation|knowledge|facts?"
    r"|indication|hint|word|clue|trace|record|entry|entries|notes?|passages?|documents?|statement|specifics"
    r"|particulars|anything)"
)
# What may follow such a noun, so that it is no part of a compound ("information desk", "data roaming", "entry fee").
_ABOUT = (
    r"(?:\s*(?:[.,;:!]|$)|\s+(?:about|regarding|concerning|as to|relating to|related to|available(?! (?:to"
    r"|for) (?!answer|say|me\b|us\b))|given|provided|found|whether|that (?:says|say|answers?|covers?"
    r"|mentions?|would)|on (?!file\b|sunday|monday|tuesday|wednesday|thursday|friday|saturday|weekend"
    r"|holiday|request|display)|of (?!charge\b)|in (?=(?:the|our|my|these|any|all)\b)|here|to (?:answer|say"
    r"|tell|go on|that|your|this)|at (?:hand|all)|for (?:that|this|it|your|the question)|there))"
)
_WHAT = r"(?:what|whether|when|where|who|whom|whose|why|which|if|how \w+)"
_IT = r"(?:that|this|it|those|these|one|so)"
_END = r"\s*(?:[.,;:!]|$)"
_SAY = (
    r"(?:mention|say|state|specify|address|discuss|describe|explain|indicate|disclose|clarify|reveal|tell"
    r"|answer|cover|detail|touch on|touch upon|refer to|speak (?:to|of|about)|talk about|go into|comment on"
    r"|note whether|record)"
)
_HOLD = r"(?:contain|have|hold|provide|give|include|offer|show|list|carry|supply|present|feature|possess)"
_SAID = (
    r"(?:mentioned|stated|specified|covered|addressed|discussed|described|explained|answered|documented"
    r"|written down|written|set out|spelt out|spelled out|indicated|disclosed|touched on|dealt with|noted"
    r"|clarified|said)"
)
_GIVEN = (
    r"(?:listed|recorded|found|available|provided|given|included|contained|shown|held|present|part of|to be "
    r"found|known)"
)
_ANSWER = (
    rf"(?:{_IT}|the answer|an answer|(?:that|this|the|such|the requested) (?:information|detail|question"
    r"|point)|the answer to (?:that|this|your question)|your question|(?:that|this) question)"
)
_UNABLE = (
    r"(?:can't|(?:can|could|do|did|was|were|am|are|'m|'re|have)(?: not|n't)(?: been)?(?: able to)?|cannot"
    r"|can not|unable to|(?:am|'m|was|were|are|'re|have been) unable to|not able to|fail(?:ed)? to|never "
    r"managed to|struggled? to)"
)
_SPEAKER = r"\b(?:i|we)"

_ENGLISH = (
    # The documents as the subject: "our notes do not mention that", "the passages provided say nothing about it".
    rf"\b(?:{_THE}|none of the|none of our)\s+(?:[\w'&-]+\s+){{0,3}}?{_SOURCE}\b(?:\s+[\w'&-]+){{0,5}}?"
    rf"\s+{_NOT}{_ADVERB}\s+{_SAY}\b(?! no\b)",
    rf"\b{_NAMED_SOURCE}(?:\s+[\w'&-]+){{0,5}}?\s+{_NOT}{_ADVERB}\s+{_HOLD}\s+(?:{_IT}{_END}|(?:any|enough"
    rf"|sufficient|the|an|such|that|this|specific|much)\s+(?:[\w-]+\s+){{0,2}}?{_INFORMATION}|anything"
    rf"|{_INFORMATION}{_ABOUT}|{_WHAT}\b)",
    rf"\b{_NAMED_SOURCE}(?:\s+[\w'&-]+){{0,5}}?\s+(?:(?:is|are|stays?|remains?|keeps?|kept|were|was) (?:all "
    r"|quite |completely |entirely )?(?:silent|quiet|mute|of no help|no help)\b|says? nothing|said nothing"
    rf"|tells? (?:me |us )?nothing|knows? nothing|makes? no (?:mention|reference)|nowhere (?:{_SAY}|{_SAY}s)"
    rf"|(?:lacks?|misses|miss)\s+(?:{_IT}{_END}|(?:any |the |that |this |an )?{_INFORMATION}))",
    rf"\b{_NAMED_SOURCE}(?:\s+[\w'&-]+){{0,5}}?\s+(?:has|{_HOLD}s?)\s+(?:nothing\b|no\s+(?:[\w-]+"
    rf"\s+)?{_INFORMATION}{_ABOUT})",
    rf"\b{_NAMED_SOURCE}(?:\s+[\w'&-]+){{0,5}}?\s+leaves?\s+(?:{_IT}|the question|your question|(?:the|that"
    r"|this) [\w ]{1,30}?)\s*(?:point )?(?:open|unanswered|unsaid|unclear|out)\b",
    r"\b(?:no|none of the|none of our|neither of the)\s+(?:[\w'-]+\s+){0,2}?(?:document|note|passage|page"
    r"|source|record|file|paragraph|article|text|section|entry|guide|manual|notes|documents|passages|pages"
    rf"|sources|records|files|papers)\b(?:\s+[\w'-]+){{0,5}}?\s+{_SAY}(?:s|es)?\b",
    r"\b(?:nothing|no word|none|not a word|not a line)\b(?:\s+(?:about|on)\s+[\w' -]{1,40}?)?"
    rf"\s+{_IN_SOURCE}",
    rf"\b(?:nothing|no word|none)\s+(?:in|from|among|of)\s+{_NAMED_SOURCE}(?:\s+[\w'-]+){{0,3}}?\s+{_SAY}(?:s"
    r"|es)?\b",
    rf"\b(?:no|not any)\s+(?:[\w-]+\s+)?{_INFORMATION}\b(?:\s+(?:about|on|of|to|regarding|for|that|concerning"
    rf"|is|are|was|were|can be|could be|appears?)\b(?:\s+[\w'-]+){{0,8}}?)?\s+{_IN_SOURCE}",
    rf"\b(?:{_SOURCE}|they|it)\s+{_NOT}{_ADVERB}\s+(?:say|mention|state|specify|tell|answer|cover|address)(?:"
    rf"\s+(?:{_IT}|anything|{_WHAT})\b|{_END})",
    rf"\b{_NAMED_SOURCE}(?:\s+[\w'&-]+){{0,8}}?\s+{_NOT}\s+(?:help(?:\s+(?:me|us|you|here|there|with)\b"
    rf"|{_END})|go (?:that|so) far|(?:go|reach|extend|get) (?:in)?to (?:{_IT}|the|any)\b|have the answer"
    r"|contain the answer|hold the answer|give the answer)",
    rf"\b{_NAMED_SOURCE}\s+(?:stops? short|runs? out|comes? up (?:empty|short)|is blank|are blank|is empty on"
    r"|are empty on|is mum|are mum)\b",
    rf"\bnone of (?:them|these|those|it)\b(?:\s+[\w'-]+){{0,2}}?\s+{_SAY}s?\b",
    r"\bnothing (?:that )?(?:i|we) (?:have|hold|was given|were given|can see|found|know|read|can find)(?:"
    rf"\s+[\w'-]+){{0,3}}?\s+(?:{_SAY}s?|mentioned|said|answered)\b",
    rf"\b(?:they|it)\s+{_NOT}{_ADVERB}\s+(?:say|mention|state|specify|tell|give)\s+(?:me|us|you)\s+(?:{_WHAT}"
    rf"|{_IT}|anything|the)\b",
    rf"\b{_NAMED_PAPERS}(?:\s+[\w'&-]+){{0,8}}?\s+{_NOT}{_ADVERB}\s+(?:{_HOLD}|mention|say|tell)\b",
    rf"\b{_NAMED_SOURCE}(?:\s+[\w'&-]+){{0,5}}?\s+(?:leaves? out|omits?|skips?|neglects? to)\b",
    rf"\b(?:they|it)\s+{_NOT}{_ADVERB}\s+(?:mention|specify|state|address|discuss|describe|tell|say what|say "
    r"when|say whether|say how|say if)s?\b",
    r"\bnothing (?:is|was|has been) (?:said|stated|mentioned|written|recorded|known)\b",
    # The same in any order, within a clause: documents, a negation before a verb of saying or finding.
    rf"\b{_NAMED_PAPERS}\b(?! you\b)[^.;!]{{0,60}}?\b{_NEGATED}\b[^.;!]{{0,30}}?\b{_TELLS}\b",
    rf"\b{_NEGATED}\b(?![^.;!]{{0,20}}?\b(?:must|need|have|allowed"
    rf"|required) to\b)[^.;!]{{0,40}}?\b{_LEARNS}\b[^.;!]{{0,60}}?\b(?:in|from|by|among|through|within|on) "
    rf"{_NAMED_PAPERS}{_SOURCE_END}",
    r"\b(?:in|from|among|through|within|on|with"
    rf"|using) {_NAMED_PAPERS}\b[^.;!]{{0,40}}?\b{_NEGATED}\b[^.;!]{{0,30}}?\b{_LEARNS}\b",
    rf"\b{_LEARNS}\b (?:neither|no|nothing|none|little|hardly anything)\b[^.;!]{{0,60}}?\b(?:in|from|among"
    rf"|within|on) {_NAMED_PAPERS}{_SOURCE_END}",
    # Documents, a negation and a verb of saying in any order, where nothing is kept, sold, signed or allowed.
    r"^(?!.*\b(?:must|may not|allowed|needs?|have to|has to|should|permitted|sell|sold|print\w*|cop(?:y|ied)"
    r"|sign\w*|return\w*|keep|kept|send|sent|share\w*|costs?|charge\w*|bring|take|taken|leave"
    rf"|use)\b)(?=.*\b{_NAMED_PAPERS}\b)(?=.*\b(?:{_NEGATED}|without|beyond|left open)\b)(?=.*\b(?:{_LEARNS}"
    rf"|{_TELLS}|speaks?|deals?|saying|finding|finds|gives?|includes?|information|details|blank|question)\b)",
    r"\b(?:do not|don't|cannot|can't) (?:believe|think|suppose|expect"
    rf"|see)(?: that)? {_NAMED_PAPERS}\b[^.;!]{{0,20}}?\b{_TELLS}\b",
    rf"^(?:but|and|yet|though|still)?,? ?(?:does|do|did)(?: not|n't){_ADVERB} (?:say|mention|state|specify"
    r"|tell|answer|cover|address|discuss|explain|describe|contain)\b",
    r"\b(?:nothing|not a word|no word|little) (?:about|on|regarding|concerning) [^.;!]{1,40}? (?:is|was|has "
    r"been|could be|can be) (?:recorded|known|written|said|mentioned|stated|noted|given|available|listed"
    r"|documented|found)\b",
    # The thing asked for as the subject: "that is not covered by our notes".
    rf"\b{_NOT}{_ADVERB}\s+(?:being |been |be )?(?:anywhere )?{_SAID}\b[^.;!]{{0,30}}?\s{_IN_SOURCE}",
    rf"\b{_ANSWER}\s*(?:'s not|{_NOT}){_ADVERB}\s+(?:be |been |being |anywhere )?(?:{_GIVEN}\s+)?(?:in|among"
    rf"|part of|on|by|from)\s+(?:{_OF_SOURCE}|what (?:i|we) (?:have|hold|know))",
    rf"\b{_ANSWER}\s*(?:'s not|{_NOT}){_ADVERB}\s+(?:be |been |being )?{_SAID}(?:\s+(?:here|anywhere"
    rf"|{_WHAT})\b|{_END})",
    rf"\b(?:is|are|was|were)\s+(?:missing|absent|left out|omitted)\s+(?:from|in)\s+{_OF_SOURCE}",
    r"\b(?:you|one)\s+(?:won't|will not|cannot|can't|will never)\s+(?:find|see|read)\b[^.;!]{1,40}?"
    rf"\s{_IN_SOURCE}",
    r"\b(?:that|this|it)(?: one)?(?:'s not| is not| isn't)\s+in\s+(?:there|here|them|it)\b",
    r"\b(?:never|not)\s+(?:been )?written down\b|\b(?:nobody|no one|never|we never|not)\s+(?:has |have |ever "
    rf")?(?:wrote|written|write)\s+{_IT}\s+down\b",
    r"\b(?:is|are)\s+not answerable\b|\b(?:isn't|aren't) answerable\b",
    r"(?:^|[,:]\s|\bso )(?:it|this|that)\s*(?:is|was|remains|'s)\s+(?:not (?:known|clear|stated|specified"
    rf"|mentioned)|unclear|unknown|unstated|unspecified)(?:\s+(?:{_WHAT}|{_IN_SOURCE})\b|{_END})",
    r"\b(?:that|this|such|the requested) (?:information|detail)\s+(?:is|was)(?: not|n't)\s+(?:available"
    rf"|provided|given|known|included|at hand)(?:\s+(?:to (?:me|us)|here)|{_END})",
    r"\b[\w-]+\s+(?:is|are|was|were)(?: not|n't)\s+in\s+(?:(?:the|our|these|any of the|any of our)"
    r"\s+)(?:[\w'-]+\s+){0,2}?(?:documents|notes|passages?|context|text|records|sources|papers|paragraph)\b",
    r"\b(?:does|do|did)(?: not|n't) (?:seem to )?(?:appear|feature|come up|occur|show up|exist)"
    rf"\s+(?:anywhere )?{_IN_SOURCE}",
    r"\b(?:cannot|can't|can not|could not|couldn't)\s+be\s+(?:answered|determined|established|inferred"
    rf"|derived)(?:\s+(?:from|with|by|on|based|using|here)\b|{_END})",
    r"\b(?:cannot|can't|can not|could not|couldn't)\s+be\s+(?:found|seen|read|told|known|said)\s+(?:anywhere"
    rf"\s+)?{_IN_SOURCE}",
    rf"\b(?:not|isn't|n't) (?:really )?something (?:that )?(?:i|we|{_NAMED_SOURCE})\s*(?:know|have|covers?"
    r"|mentions?|says?|answers?|can (?:answer|find|tell)|could find|speaks?)",
    rf"\b(?:beyond|outside|not within)\s+(?:the scope of\s+)?(?:{_OF_SOURCE}|what (?:i|we|our [\w ]{{1,20}}) "
    r"(?:know|have|hold|cover)s?\b)",
    r"\bthere(?:'s| is| are| was| were| seems to be| appears to be)(?: not|n't)?\s+(?:no|any)\s+(?:[\w-]+"
    r"\s+)?(?:information|info|details?|data|answers?|mentions?|references?|documentation|indication|word"
    rf"|record|notes?)\b{_ABOUT}",
    rf"\bthere(?:'s| is| was)\s+(?:nothing|no entry)\s+(?:(?:about|on|regarding)\s+(?:{_IT}|your question|the "
    rf"\w+)\b|{_IN_SOURCE})",
    r"^(?:sorry,? |unfortunately,? |well,? )?(?:(?:the )?(?:requested )?(?:information|answer|details)(?: is"
    r"| was| are)? not (?:found|available|provided|given|stated|included|mentioned)|no (?:relevant |such "
    r"|further )?(?:information|answer|details|mention|entry|reference)s?(?: was| were)? found)\b",
    rf"\b{_NOT}{_ADVERB}\s+(?:be |been |being )?{_GIVEN}\s+(?:in|by|from|among|within)"
    rf"\s+{_NAMED_PAPERS}{_SOURCE_END}",
    rf"^(?:sorry,? |unfortunately,? )?not (?:\w+ )?{_IN_SOURCE}",
    rf"\bfound\s+no\s+(?:[\w-]+\s+)?{_INFORMATION}{_ABOUT}|\bfound nothing\b(?! (?:wrong|better|else|new"
    r"|broken|missing))",
    r"\bhard to (?:say|tell)(?: from|\s*(?:[.,;:!]|$))|\bunsure(?: about| of| whether| if|\s*(?:[.,;:!]|$))"
    r"|\b(?:cannot|can't) be (?:sure|certain)\b",
    r"\b(?:nobody|no one|none of us)\s+(?:here )?(?:knows|could tell|can say|can tell|could say)(?:"
    rf"\s+(?:{_WHAT}|{_IT}|the answer)\b|{_END})",
    r"\bin the dark (?:about|on|here)\b|\byour guess is as good as\b",
    r"\bno (?:document|note|passage|page|source|file|paragraph|text)\b[^.;!]{0,20}?\b(?:gives|shows|contains"
    r"|has|deals|speaks|covers|lists|holds)\b",
    r"\b(?:information|details?|answer|data)\b(?: (?:of|about|on|for|to)\b[^.;!]{1,40}?)? (?:is|are|was"
    r"|were)(?: not|n't) (?:given|available|provided|stated|known|recorded|there|here|included)(?:\s+(?:here"
    rf"|anywhere)|{_END})",
    r"\b(?:search|look|check|hunt)\w*\b[^.;!]{1,50}?\b(?:without success|in vain|to no avail)\b|\b(?:haven't"
    r"|have not) (?:the faintest|the slightest|a|any) (?:idea|clue)\b",
    # The speaker as the subject: "I could not find it", "we do not know".
    rf"{_SPEAKER}{_ADVERB}\s+(?:do not|don't|did not|didn't){_ADVERB}\s+know(?:\s+(?:{_WHAT}|{_IT}|the answer"
    rf"|about|anything|for sure|exactly|the|enough)\b|{_END})",
    rf"{_SPEAKER}(?:'m|'re| am| are){_ADVERB}\s+not\s+(?:entirely |quite |completely |at all )?(?:sure"
    rf"|certain)(?:\s+(?:about|of|{_WHAT})\b|{_END})",
    rf"{_SPEAKER}\s*{_UNABLE}{_ADVERB}\s+(?:find|locate|spot|retrieve|identify|discover|make out|see"
    r"|determine|tell|confirm|verify)\s+(?:(?:you )?(?:any|an|the|enough|sufficient|such|that|this|your|more"
    rf"|a|clear|specific|relevant|reliable)\s+(?:[\w-]+\s+){{0,2}}?{_INFORMATION}{_ABOUT}|anything\b"
    rf"|{_WHAT}\b|{_INFORMATION}{_ABOUT})",
    rf"{_SPEAKER}\s*{_UNABLE}{_ADVERB}\s+(?:find|locate|retrieve|determine|look up)\s+{_IT}(?:\s+(?:out|one"
    rf"|here|anywhere|{_IN_SOURCE})|{_END})",
    rf"{_SPEAKER}\s*{_UNABLE}{_ADVERB}\s+(?:find|locate|see|spot|identify)\b[^.;!]{{1,60}}?\s{_IN_SOURCE}",
    rf"{_SPEAKER}\s*{_UNABLE}{_ADVERB}\s+(?:answer|respond to)(?:\s+(?:{_IT}|your|the question|from|based"
    rf"|with|you|what|questions? (?:about|on))\b|{_END})",
    rf"{_SPEAKER}\s*{_UNABLE}{_ADVERB}\s+(?:say|tell(?: you)?|confirm)(?:\s+(?:for (?:sure|certain)|with "
    rf"certainty|exactly|{_WHAT}|from|based on)\b|\s+(?:that|this|it){_END}|{_END})",
    rf"{_SPEAKER}\s*{_UNABLE}{_ADVERB}\s+(?:provide|give|offer)(?:\s+you)?(?:\s+with)?\s+(?:an|the|any|a)"
    r"\s+(?:[\w-]+\s+)?answer\b",
    rf"{_SPEAKER}\s*{_UNABLE}{_ADVERB}\s+(?:provide|give|offer)(?:\s+you)?(?:\s+with)?\s+(?:that information"
    r"|this information|(?:any )?(?:information|details?) (?:on|about) (?:that|this|it))\b",
    rf"{_SPEAKER}\s*{_UNABLE}{_ADVERB}\s+(?:help|assist)(?:\s+you)?\s+(?:with|on|there|here)\s*(?:that|this"
    rf"|your question|it)?(?: one| question| query)?{_END}",
    rf"{_SPEAKER}{_ADVERB}\s+(?:do not|don't){_ADVERB}\s+(?:have|hold|possess|keep|see)\s+(?:access to"
    r"\s+)?(?:(?:any|enough|sufficient|the|that|this|an?|such|specific|further|more|relevant|reliable|exact)"
    r"\s+){0,2}(?:[\w-]+\s+)?(?:information|info|details?|data|answers?|mentions?|references?"
    rf"|documentation|knowledge|indication|record|notes?|entry|anything)\b{_ABOUT}",
    rf"{_SPEAKER}(?:'ve| have)?{_ADVERB}\s+(?:have|got|hold|find|found|see|can find|could find|know|possess"
    rf"|keep){_ADVERB}\s+(?:absolutely )?no\s+(?:[\w-]+\s+)?(?:information|info|details?|data|answers?"
    r"|mentions?|references?|documentation|knowledge|indication|record|notes?|trace|word|clue"
    rf"|idea)\b(?:{_ABOUT}|\s+{_WHAT})",
    rf"{_SPEAKER}(?:'ve| have)?{_ADVERB}\s+(?:have|hold|find|found|see)\s+no\s+entry\b(?:\s+(?:on|for|about)"
    rf"\s+(?:{_IT}|your question)\b|[^.;!]{{0,40}}?\s{_IN_SOURCE})",
    rf"{_SPEAKER}(?:'ve| have)?{_ADVERB}\s+(?:have|hold|know|found|find|see|can find|could find)\s+nothing"
    r"\s+(?:(?:on|about|regarding|of)\s+(?!offer|sale)\w+|that (?:would |could |might )?(?:says?|answers?"
    rf"|covers?|mentions?|tells?)|written|recorded|{_IN_SOURCE})",
    rf"{_SPEAKER}\s+(?:found|find|could find|can find)\s+nothing{_END}",
    rf"{_SPEAKER}\s+lack\s+(?:the |any |that |enough )?(?:information|details|data|knowledge|documents)\b",
    rf"{_SPEAKER}\s*{_UNABLE}{_ADVERB}\s+(?:find|locate|see|spot)\s+(?:any|a|the)?\s*(?:\w+ )?(?:references? "
    r"to|mentions? of)\b",
    rf"{_SPEAKER}(?:'ve| have)?\s+(?:come|came|drawn|drew|turned)\s+(?:up\s+empty|a blank|up nothing|up "
    r"blank)\b",
    rf"{_SPEAKER}\s+(?:have not|haven't|had not)(?: been able to| yet)?\s+(?:found|find|seen|located|come "
    r"across|read|discovered)\s+(?:(?:any|an|the|a|enough"
    rf"|such)\s+(?:[\w-]+\s+){{0,2}}?{_INFORMATION}{_ABOUT}|anything (?:about|on|regarding|to)\b|{_IT}{_END}"
    rf"|[^.;!]{{1,50}}?\s(?:in|among)\s+{_NAMED_PAPERS})",
    rf"{_SPEAKER}\s+(?:have not|haven't)\s+(?:got\s+)?(?:any|enough|the|that|sufficient|such)\s+(?:[\w-]+"
    rf"\s+)?(?:information|info|details?|data|answers?|documentation|knowledge|record|notes?)\b{_ABOUT}",
    rf"{_SPEAKER}\s+(?:have not|haven't|was not|wasn't|were not|weren't|are not|aren't|am not|have never"
    r"|never)\s+(?:been\s+)?(?:told|informed|briefed|taught|given (?:any|that|this|the|such) (?:\w+ "
    rf")?{_INFORMATION})(?:\s+(?:about|of|on|{_WHAT}|{_IT}|anything)\b|{_END})",
    rf"{_SPEAKER}(?:'ve| have)\s+(?:got\s+)?no\s+(?:[\w-]+\s+)?(?:information|info|details?|data|answers?"
    rf"|mentions?|documentation|knowledge|record|notes?|word|clue|idea)\b(?:{_ABOUT}|\s+{_WHAT})",
    rf"{_SPEAKER}\s+(?:have no|lack|do not have|don't have)\s+access\b",
    r"\bnot in a position to (?:answer|say|tell)\b|\bnot that (?:i|we) (?:know|can see|could find|can "
    r"find)\b",
    rf"{_SPEAKER}(?:'d| would) need (?:more|further|additional) (?:information|details|context)\b|\bno "
    rf"(?:idea|clue){_END}",
    r"\b(?:drawing|drew|drawn|draw) a blank\b|\bstumped\b",
    # Without a subject.
    r"^(?:sorry,? |unfortunately,? )?(?:could not|couldn't|cannot|can't|unable to|not able to|did not"
    rf"|didn't)\s+(?:find|locate|answer|determine)\s+(?:{_IT}|anything|any|an answer|the answer|information"
    r"|the \w+)\b",
    r"^(?:found nothing|nothing found|found no (?:answer|information|mention))\b",
    r"^not (?:found|mentioned|stated|specified|covered|documented|answered|answerable|addressed"
    rf"|described)(?:\s+(?:here|anywhere|{_IN_SOURCE})|{_END}$)",
    rf"^(?:but )?(?:not|never) (?:that|this|on that)(?: one)?{_END}$",
    r"^(?:unanswerable|not answerable|no answer (?:found|available|given|is available)|no information(?: "
    r"(?:found|available|given|provided|is available|on (?:that|this|it)|about \w+.{0,40}))?|no (?:idea"
    r"|clue)|(?:i )?(?:don't|do not) know|dunno|nothing found|not in (?:the|our) (?:documents?|context"
    r"|passages?|text|notes|files|records))"
    r"(?:,? (?:(?:i'm|so|very) )?(?:sorry|afraid))?[.!]*$",
    r"\bno\s+(?:[\w-]+\s+)?(?:information|details?|answer|mention|documentation|data)\b(?:\s+(?:about|on"
    r"|regarding|of|for)\s+[\w' -]{1,50}?)?\s+(?:is|are|was|were|has been|could be|can be)\s+(?:available"
    rf"|given|provided|found|made|stated|recorded)(?:\s+{_IN_SOURCE}|\s+(?:here|about|on|regarding)\b|{_END})",
)
_GERMAN_SOURCE = (
    r"(?:unterlagen|dokumenten?|dokumentation|notizen|handb(?:uch|üchern?)|texte?n?|passagen?|textstellen?"
    r"|quellen?|aufzeichnungen|akten|seiten?|kontext|leitfaden|anleitung|abschnitte?n?|wissensdatenbank"
    r"|broschüre|materialien|merkbl(?:att|ättern?)|artikeln?|informationen|daten|dateien|datenbank|katalog"
    r"|absatz|heft)"
)
# without "data" and "information", which are passed on, deleted or wanted more often than read
_GERMAN_PAPERS = (
    r"(?:unterlagen|dokumenten?|dokumentation|notizen|handb(?:uch|üchern?)|texte?|texten|passagen?"
    r"|textstellen?|quellen|aufzeichnungen|leitfaden|broschüre|merkbl(?:att|ättern?))"
)
_GERMAN_INFORMATION = (
    r"(?:informationen|information|angaben?|antwort|hinweise?|auskunft|auskünfte|daten|kenntnis|eintrag"
    r"|einträge|details|erwähnung|aussage)"
)
_GERMAN_SAY = (
    r"(?:sag\w*|erwähn\w*|nenn\w*|genannt|beantwort\w*|behandel\w*|angegeben|beschr\w+|erklär\w*|enthalten"
    r"|dokumentiert|vermerkt|verzeichnet|festgehalten|auf\w*führ\w*|aufgeführt|hervor|entnehmen|erfahren"
    r"|gefunden|finden|zu lesen|äußer\w*)"
)
_GERMAN = (
    rf"\b{_GERMAN_SOURCE}\b[^.;!]{{0,60}}?\b(?:nicht|nichts|kein\w*)\b[^.;!]{{0,40}}?\b{_GERMAN_SAY}\b",
    rf"\b{_GERMAN_SOURCE}\b[^.;!]{{0,20}}?\b{_GERMAN_SAY}\b[^.;!]{{0,30}}?\b(?:nicht|nichts)\b",
    rf"\b{_GERMAN_SOURCE}\b[^.;!]{{0,40}}?\b(?:steht|stehen|schweigen|schweigt|findet sich|gibt es|haben wir"
    r"|ist|sind|enthalten|enthält|geben|liefern|bieten|hergeben)\b[^.;!]{0,30}?\b(?:nichts|keine?\w* "
    rf"(?:\w+ )?{_GERMAN_INFORMATION})\b",
    rf"^(?=.*\b{_GERMAN_PAPERS}\b).*\bschweig(?:t|en)\b",
    r"\b(?:steht|stehen|finde\w* sich|gibt es|ist|sind|fand)\b[^.;!]{0,40}?\b(?:nichts?|kein\w*(?: "
    rf"{_GERMAN_INFORMATION})?)\b[^.;!]{{0,20}}?\bin\s+(?:den|der|dem|unseren|unserem|unserer|meinen|diesen"
    rf"|diesem)\s+(?:\w+\s+)?{_GERMAN_SOURCE}\b",
    r"\b(?:nicht|nichts|kein\w*)\b[^.;!]{0,30}?\b(?:in|aus)\s+(?:den|der|dem|unseren|unserem|unserer"
    rf"|diesen|diesem)\s+(?:\w+\s+)?{_GERMAN_SOURCE}\b[^.;!]{{0,20}}?\b{_GERMAN_SAY}\b",
    rf"\b(?:aus|anhand|auf grundlage)\s+(?:\w+\s+){{1,3}}?{_GERMAN_SOURCE}\b[^.;!]{{0,50}}?\bnicht\b[^.;!]{{0,30}}\b(?:aus"
    rf"|anhand|auf grundlage)\s+(?:\w+\s+){{1,3}}?{_GERMAN_SOURCE}\b[^.;!]{{0,50}}?\bnicht\b[^.;!]{{0,30}}?\b(?:aus"
    rf"|anhand|auf grundlage)\s+(?:\w+\s+){{1,3}}?{_GERMAN_SOURCE}\b[^.;!]{{0,50}}?\bnicht\b[^.;!]{{0,30}}?\b(?:hervor"
    r"|beantworte\w*|sagen|entnehmen|ableiten|ersichtlich)\b",
    rf"^(?!.*\b(?:muss|müssen|darf|dürfen|soll|sollen|sollte\w*)\b)(?=.*\b{_GERMAN_PAPERS}\b)(?=.*\b(?:nicht"
    rf"|nichts|kein\w*|nirgends)\b)(?=.*\b(?:steht|stehen|finde|findet|finden|{_GERMAN_SAY}"
    rf"|{_GERMAN_INFORMATION}|rede)\b)",
    r"\b(?:habe|haben|finde|finden|fand|kenne|sehe|besitze)\s+(?:ich|wir)\b(?:\s+\w+){0,4}?\s+keine?\w* "
    rf"(?:\w+ )?{_GERMAN_INFORMATION}\b",
    r"\b(?:ich|wir)\s+(?:habe|haben|finde|finden|fand|sehe|besitze)\b(?:\s+\w+){0,4}?\s+keine?\w* (?:\w+ "
    rf")?{_GERMAN_INFORMATION}\b",
    rf"\bfehl(?:t|en)\s+(?:mir|uns|hier)\b[^.;!]{{0,25}}?\b{_GERMAN_INFORMATION}\b",
    r"\b(?:lässt|ließ) sich (?:\w+ ){0,4}?nicht (?:sagen|beantworten|feststellen|ermitteln|klären)\b",
    r"\bist\s+(?:\w+\s+)?nicht\s+(?:dokumentiert|vermerkt|festgehalten|angegeben|erwähnt)\b|\bda muss ich "
    r"(?:leider )?passen\b|\bkeine ahnung\b",
    r"\b(?:ich|wir)\s+(?:\w+\s+)?(?:weiß|weiss|wissen)\s+(?:es|das|dies|dazu|darüber|leider)?\s*(?:leider "
    r")?(?:nicht|nichts)\b",
    r"\b(?:weiß|weiss|wissen)\s+(?:ich|wir)\s+(?:leider |das |es |dazu |darüber )*(?:nicht|nichts)\b",
    r"\b(?:kann|können|konnte|konnten)\b(?:\s+\w+){0,5}?\s+(?:leider )?nicht\s+(?:\w+\s+)?(?:beantworten"
    r"|sagen|herausfinden)\b",
    r"\b(?:kann|können|konnte|konnten)\s+(?:ich|wir)?\b(?:\s+\w+){0,5}?\s+(?:nichts|nicht|keine?\w* (?:\w+ "
    rf")?{_GERMAN_INFORMATION})\b(?:\s+\w+){{0,6}}?\s+(?:finden|entdecken)\b(?=[^.;!]{{0,1}}$"
    rf"|[^.;!]{{0,40}}{_GERMAN_SOURCE})",
    r"\b(?:habe|haben)\s+(?:ich|wir)?\b(?:\s+\w+){0,5}?\s+(?:nichts"
    rf"|keine?\w* (?:\w+ )?{_GERMAN_INFORMATION})\b(?:\s+\w+){{0,6}}?\s*(?:gefunden|darüber|dazu|hierzu"
    r"|vorliegen)\b",
    r"\b(?:dazu|darüber|hierzu|davon|zu dieser frage|zu ihrer frage"
    rf"|zu deiner frage)\b[^.;!]{{0,40}}?\b(?:nichts|keine?\w* (?:\w+ )?{_GERMAN_INFORMATION})\b",
    rf"\b(?:liegen|liegt)\s+(?:mir|uns|hier)\b[^.;!]{{0,40}}?\bkeine?\w* (?:\w+ )?{_GERMAN_INFORMATION}\b",
    r"\b(?:das|dies|es|davon)\s+ist\s+(?:mir|uns)\s+(?:leider )?nicht bekannt\b",
    r"\b(?:ist|sind)\s+(?:mir|uns)\s+(?:leider )?nicht bekannt\b",
    r"\b(?:wird|werden|wurde|ist)\b[^.;!]{0,15}?\bin\s+(?:den|der|dem|unseren|unserem|unserer|diesen"
    rf"|diesem)\s+(?:\w+\s+)?{_GERMAN_SOURCE}\b[^.;!]{{0,15}}?\b(?:nicht|nirgends)\b",
    r"^(?:leider )?(?:nicht (?:angegeben|erwähnt|genannt|bekannt|dokumentiert|gefunden)|keine (?:ahnung"
    rf"|angaben?|antwort|informationen?)(?: (?:dazu|darüber|gefunden|verfügbar|vorhanden))?){_END}$",
)
_SPANISH_SOURCE = (
    r"(?:documentos?|documentación|notas|textos?|pasajes?|fuentes?|archivos?|registros|guías?|manual(?:es)?"
    r"|contexto|páginas?|artículos?|párrafos?|apuntes|base de datos|materiales?|información|fichas?"
    r"|folletos?|expedientes?|datos)"
)
_SPANISH_INFORMATION = (
    r"(?:información|datos|detalles|respuesta|constancia|referencias?|mención|nada|indicación|conocimiento)"
)
_SPANISH_ABOUT = (
    r"(?:\s*(?:[.,;:!]|$)|\s+(?:sobre|acerca|al respecto|de eso|de ello|a esa|a esta|a esto|para es[ao]|para "
    r"esta|para responder|suficiente|en (?:los|las|el|la|nuestr\w+)|disponible))"
)
_SPANISH = (
    rf"\b(?:l[oa]s?|el|nuestr\w+|est[eao]s?|estos|ningun[oa]?)\s+(?:\w+\s+)?{_SPANISH_SOURCE}\b(?:"
    r"\s+\w+){0,4}?\s+(?:no|tampoco)\s+(?:l[oa]s?\s+|nos\s+)?(?:mencion\w+|dic\w+|indic\w+|especific\w+"
    rf"|contien\w+ (?:esa|esta|eso|nada|{_SPANISH_INFORMATION})|incluy\w+ (?:esa|esta|eso|nada"
    rf"|{_SPANISH_INFORMATION})|recog\w+|aclar\w+|respond\w+|contest\w+|explic\w+|detall\w+|habl\w+ de"
    rf"|abord\w+|trat\w+|ofrec\w+ (?:esa|{_SPANISH_INFORMATION})|d(?:a|an) (?:esa|{_SPANISH_INFORMATION}))",
    rf"\bning(?:ún|uno|una)\b[^.;!]{{0,20}}?{_SPANISH_SOURCE}\b[^.;!]{{0,20}}?\b(?:mencion\w+|dic\w+|indic\w+"
    r"|respond\w+|recog\w+|explic\w+|habl\w+)\b",
    r"\bno\s+(?:se\s+)?(?:menciona\w*|indica\w*|especifica\w*|dice\w*|recoge\w*|detalla\w*|aparece\w*"
    r"|figura\w*|consta\w*|encuentra\w*|está\w*|viene\w*|explica\w*|aclara\w*)\b[^.;!]{0,40}?\ben"
    rf"\s+(?:l[oa]s?|el|nuestr\w+|est[eao]s?|ningun[oa]?)\s+(?:\w+\s+)?{_SPANISH_SOURCE}\b",
    rf"\ben\s+(?:l[oa]s?|el|nuestr\w+|est[eao]s?|ningun[oa]?)\s+(?:\w+\s+)?{_SPANISH_SOURCE}\b(?:"
    r"\s+\w+){0,2}?\s+no\s+(?:se\s+)?(?:menciona|indica|especifica|dice|recoge|detalla|aparece|figura"
    r"|consta|encuentra|explica|habla)",
    r"^(?=.*\b(?:documentos?|documentación|notas|textos?|pasajes?|fuentes|manual(?:es)?|contexto|apuntes"
    r"|folletos?)\b)(?=.*\b(?:no|nada|ningun\w*|tampoco|ninguna)\b)(?=.*\b(?:const\w+|mencion\w+|dicen?"
    r"|indic\w+|especific\w+|respond\w+|contest\w+|aclar\w+|explic\w+|detall\w+|figura\w*|aparec\w+"
    r"|información|respuesta|encuentr\w+|encontr\w+)\b)",
    r"\bdesconozco|\bdesconocemos\b|\bno (?:me|nos) consta\b|\b(?:no tengo )?ni idea\b|\bno (?:he|hemos) "
    r"podido (?:encontrar|hallar|localizar)\b",
    rf"\bno\s+hay\s+(?:ningun[oa]?\s+)?(?:{_SPANISH_INFORMATION}){_SPANISH_ABOUT}",
    r"\bno\s+(?:lo\s+|la\s+)?(?:sé|sabemos|sabría|sabríamos)\b(?!\s+nadar)",
    r"\bno\s+(?:l[oa]\s+|he\s+|hemos\s+)?(?:encontré|encuentro|encontramos|encontrado|pude encontrar|pud\w+ "
    r"hallar|puedo encontrar|podemos encontrar|hallé|hallado|logré encontrar|conseguí encontrar)"
    r"\s*(?:l[oa]\b)?\s*(?:(?:nada|eso|esa|ese|esto|esta|ninguna|la (?:respuesta|información)"
    rf"|{_SPANISH_INFORMATION})\b|en\s+(?:l[oa]s?|el|nuestr\w+)\s+{_SPANISH_SOURCE}\b|[.,;!]|$)",
    r"\bno\s+(?:tengo|tenemos|dispongo|disponemos|cuento|contamos|poseo)\s+(?:con\s+|de\s+)?(?:la\s+|esa\s+"
    rf"|esta\s+|ninguna\s+|suficiente\s+|más\s+)?{_SPANISH_INFORMATION}{_SPANISH_ABOUT}",
    r"\bno\s+(?:l[eao]s?\s+|te\s+)?(?:puedo|podemos|podría|me es posible|nos es posible|es posible|se puede"
    r"|soy capaz de|sabría)\s+(?:responder|contestar|decir(?:lo|le|te|selo)?|determinar|confirmarlo|saberlo"
    r"|responderle|responderte)(?:\s+(?:a\b|es[ao]|est[ao]|su|tu|la pregunta|con|qué|si|cuándo|cuál|cuánto"
    r"|dónde|quién)|\s*(?:[.,;!]|$))",
    r"^(?:lo siento,? |lamentablemente,? )?(?:no se (?:indica|menciona|especifica|sabe|dice)|sin "
    rf"(?:respuesta|información)|no consta|no figura|no aparece){_END}$",
    rf"\b(?:nada|poco)\s+(?:se dice|dicen|dice|consta|hay|encontré|aparece)\b[^.;!]{{0,40}}?{_SPANISH_SOURCE}",
    r"\b(?:eso|esto|esa información|este dato|ese dato)\s+no\s+(?:aparece|figura|consta|está|se menciona|se "
    r"indica|viene|se recoge)\b",
)
_OTHERS = (
    # French
    r"\b(?:je|nous) (?:ne )?(?:le )?(?:sais|savons) pas\b",
    r"\b(?:je|nous) n'(?:ai|avons)(?: malheureusement)? (?:pas|rien) (?:pu )?trouv(?:é"
    r"|er)\b(?:[^.;!]{0,40}?\b(?:documents?|notes|sources|textes?|passages?|information|réponse|cela)\b"
    r"|[.,;!]|$)",
    r"\b(?:je|nous) n'(?:ai|avons) (?:pas|aucune) (?:d'|cette |l')?(?:information|réponse|donnée"
    r"|indication)s?\b",
    r"\b(?:documents?|notes|sources|textes?|passages?|manuel|contexte|fiches?)\b[^.;!]{0,30}?\bn(?:e "
    r"|')(?:le |la |les |nous )?(?:mentionn|dis|dit|précis|indiqu|répond|contien|parl|abord"
    r"|fourni)\w*\b[^.;!]{0,12}?\b(?:pas|rien|aucune?)\b",
    r"\bne (?:figure|se trouve|sont|est) (?:pas|nulle part)[^.;!]{0,20}?\bdans (?:les|nos|le|notre|ces|la) "
    r"(?:\w+ )?(?:documents?|notes|sources|textes?|passages?|manuel|contexte|fiches?)\b",
    r"\bn'(?:est|apparaît|apparait) (?:pas|nulle part)[^.;!]{0,25}?\bdans (?:les|nos|le|notre|ces|la) (?:\w+ "
    r")?(?:documents?|notes|sources|textes?|passages?|manuel|contexte|fiches?)\b",
    r"\b(?:je|nous) ne (?:peux|pouvons|suis|sommes|trouve|trouvons) pas (?:en mesure de )?(?:y )?(?:répondre"
    r"|vous le dire|le dire|trouver (?:cela|cette|la réponse)|cette information)\b",
    # Italian
    r"\bnon (?:lo )?(?:so|sappiamo)(?=[.,;!]|$)|\bnon (?:ho|abbiamo) (?:trovato (?:nulla|niente|questa"
    r"|informazioni|la risposta)|informazioni)\b",
    r"\b(?:documenti|documento|note|testo|fonti|manuale|contesto)\b[^.;!]{0,25}?\bnon (?:lo )?(?:menzion|dic"
    r"|indic|specific|contien|riport|rispond|parl)\w+",
    r"\bnon (?:è|viene|si trova|compare|figura|risulta) (?:\w+ )?(?:nei|nel|nelle|nella|negli) (?:nostri "
    r"|nostre )?(?:documenti|documento|note|testo|fonti|manuale|contesto)\b",
    # Portuguese
    r"\bnão (?:sei|sabemos)(?=[.,;!]|$)|\bnão (?:encontrei|encontramos|consegui encontrar|tenho|temos) "
    r"(?:nada|essa|esta|isso|informaç\w+|a resposta)\b",
    r"\b(?:documentos?|notas|texto|fontes|manual|contexto)\b[^.;!]{0,25}?\bnão (?:o )?(?:mencion|diz|dizem"
    r"|indic|especific|contê|contém|respond|refer)\w*",
    r"\bnão (?:é|está|aparece|consta|figura) (?:\w+ )?(?:nos|no|nas|na) (?:nossos |nossas )?(?:documentos?"
    r"|notas|texto|fontes|manual|contexto)\b",
    # Dutch
    r"\b(?:ik|we|wij) (?:weet|weten) (?:het|dat)? ?niet\b|\b(?:kan|kon|konden|kunnen) (?:ik|we|wij)? ?(?:dat"
    r"|dit|het|hier|daar)? ?(?:\w+ )?(?:niet|niets|geen (?:informatie|antwoord)) (?:\w+ ){0,5}?(?:vinden"
    r"|beantwoorden)\b",
    r"\b(?:documenten|document|notities|tekst|bronnen|handleiding|stukken)\b[^.;!]{0,25}?\b(?:vermeld|zegg"
    r"|noem|staat|staan|bevat|gev)\w*\b[^.;!]{0,20}?\b(?:niet|niets|geen)\b",
    r"\bstaat (?:niet|niets|er niets)[^.;!]{0,15}?\bin (?:de|onze|het|deze) (?:documenten|document|notities"
    r"|tekst|bronnen|handleiding|stukken)\b",
)
# One of these words is in every refusal: a clause without any is not matched against the patterns.
_HINT = re.compile(
    r"n't\b|\b(?:not|no|cannot|nothing|never|nowhere|none|neither|unable|unanswerable|unclear|unknown"
    r"|unstated|unspecified|silent|quiet|mute|lacks?|miss(?:es)?|fails?|failed|leaves?|beyond|outside"
    r"|struggled?|without|vain|avail|dunno|nicht|nichts|nirgends|kein\w*|schwei\w+|tampoco|ning\w+|descono\w+|fehl\w+|unsure"
    r"|hard|guess|dark|omits?|skips?|neglects?|ni|passen|stumped|blank|missing|absent|omitted|left|short|mum"
    r"|empty|need|nobody|nada|sin|ne|n'\w+|non|não|niet|niets|geen)\b"
)


@cache
def _patterns() -> tuple[re.Pattern[str], ...]:
    """Return the compiled patterns; on first use, as compiling takes a fifth of a second."""
    return tuple(re.compile(pattern) for pattern in (*_ENGLISH, *_GERMAN, *_SPANISH, *_OTHERS))


def refuses_in_words(clause: str) -> bool:
    """Return whether a clause says that the documents do not hold something, or that it cannot be found or answered."""
    plain = " ".join(clause.casefold().replace("’", "'").split())
    return bool(_HINT.search(plain)) and any(pattern.search(plain) for pattern in _patterns())
