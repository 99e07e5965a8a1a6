"""What of a sentence can be checked."""

from __future__ import annotations

import pytest

from rag.grounding.claims import (
    Claim,
    clause_claims,
    is_negated,
    normalise_quotation,
    proper_names,
    quotations,
)


def test_claim_of_sentence() -> None:
    made = Claim.of("On 12 May the Moss Line leaves at 7 pm for “the far side of the bay”, not earlier.")
    assert made.dates == {(None, 5, 12)}
    assert made.numbers == {"19:00"}
    assert made.names == {"moss", "line"}
    assert made.quotes == ("the far side of the bay",)
    assert {"moss", "leav", "bay"} <= made.words
    assert made.denies


@pytest.mark.parametrize(
    ("sentence", "wanted"),
    [
        ("A single costs 14.50 euros and children travel free.", 2),
        ("Dogs travel on deck; cats stay at home, sadly.", 2),
        ("The bar, of course, is open.", 0),
        ("A single costs 14.50 euros.", 0),
        ("Yes, but dogs pay 3 euros.", 0),
    ],
)
def test_clause_claims_count(sentence: str, wanted: int) -> None:
    assert len(clause_claims(sentence)) == wanted


def test_clause_claims_share_names() -> None:
    first, second = clause_claims("The Moss Line leaves at 08:15 and costs 8 euros.")
    assert first.names == second.names == {"moss", "line"}
    assert second.words == {"cost", "euro"}


def test_names_quotations_and_negation() -> None:
    assert proper_names("Moss Line boats leave from Pellin.") == {"moss", "line", "pellin"}
    assert proper_names("The boat leaves.") == set()
    assert proper_names("ALL OF IT IS LOUD HERE") == set()
    assert quotations('It says "no dogs in the lounge" and "here".') == ("no dogs in the lounge",)
    assert normalise_quotation("“No–dogs’  in Lounge.”") == normalise_quotation('"no-dogs\' in lounge"')
    assert is_negated("Dogs are not allowed.")
    assert not is_negated("No, dogs are allowed.")
