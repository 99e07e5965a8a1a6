"""English words that ``grammar`` needs to turn a statement round."""

from __future__ import annotations

_AUXILIARIES = """
    are can could is may might must shall should was were will would
"""
_REGULAR = """
    accept add agree allow answer appear apply arrive ask belong board call carry cause change charge claim
    close collect consider consist contain continue cost count cover create cross dance deliver depart
    depend describe develop dock earn employ end expect feature finish fit follow help hire include increase
    issue join land last launch learn lend listen live lock love mark mean measure need offer open operate
    order own park pass pause play prevent produce promise protect provide pull reach receive recognise
    recommend refresh release remain repair replace represent require reserve return ring sail save seat
    serve show sign sleep start stay stop store suggest support tie travel turn use visit want wash watch
    weigh welcome work
"""
_IRREGULAR = """
    become became  begin began  bring brought  build built  buy bought  come came  cost cost  drink drank
    eat ate  fall fell  find found  get got  give gave  go went  grow grew  have had  hold held  keep kept
    lead led  leave left  lend lent  lie lay  lose lost  make made  meet met  pay paid  rise rose  run ran
    say said  sell sold  send sent  sit sat  sleep slept  stand stood  take took  teach taught  wear wore
    win won  write wrote
"""
_ONLY_PAST = """
    ate became began came drank fell gave grew ran rose took went wore wrote
"""
_PREPOSITIONS = """
    at by for from in of on to under with without
"""
_PLURAL = """
    children crew men people police staff they women you
"""
_OPENERS = """
    after also although among and as at because before being between both but by despite during for from having he her
    here his how however i if in it its let my no nor not on once other or our over please she since so such that
    their then these they this those though to under unless until we what when where which while who why
    with without yet
"""
_DETERMINERS = """
    a all an any both each every most only some the
"""
_CLAUSE = """
    although because if that when where whether which while who whom whose
"""
AUXILIARIES = frozenset(_AUXILIARIES.split())
PREPOSITIONS = frozenset(_PREPOSITIONS.split())
ONLY_PAST = frozenset(_ONLY_PAST.split())
"""Past forms that are no participles, so that a preposition may follow."""
PLURAL = frozenset(_PLURAL.split())
"""Subjects of many without an s."""
OPENERS = frozenset(_OPENERS.split())
"""A sentence that begins with one of these has no plain subject in front, or one that stands elsewhere."""
DETERMINERS = frozenset(_DETERMINERS.split())
CLAUSE = frozenset(_CLAUSE.split())
"""Words that begin a subordinate clause."""


def _forms() -> dict[str, tuple[str, str]]:
    irregular = dict(zip(*[iter(_IRREGULAR.split())] * 2, strict=True))
    found: dict[str, tuple[str, str]] = {}
    for base in [*_REGULAR.split(), *irregular]:
        y = base.endswith("y") and base[-2] not in "aeou"
        past = (
            base[:-1] + "ied"
            if y
            else base + ("d" if base.endswith("e") else "ped" if base == "stop" else "ed")
        )
        third = (
            base[:-1] + "ies" if y else base + ("es" if base.endswith(("s", "sh", "ch", "x", "o")) else "s")
        )
        found.setdefault(base, ("do", base))
        found.setdefault(irregular.get(base, past), ("did", base))
        found["has" if base == "have" else third] = ("does", base)
    return found


FORMS = _forms()
"""Each form of a verb with the auxiliary that asks for it and its base form: "leaves" gives does, leave."""
