"""The checkable parts of sentences and clauses."""

from __future__ import annotations

from rag.sentences.claims import (
    Claim,
    is_negated,
    normalise_quotation,
    proper_names,
    quotations,
)


def test_claim_of_sentence() -> None:
    claim = Claim.of("On 12 May the Moss Line leaves at 7 pm for “the far side of the bay”, not earlier.")
    assert claim.dates == {(None, 5, 12)}
    assert claim.numbers == {"19:00"}
    assert claim.names == {"moss", "line"}
    assert claim.quotes == ("the far side of the bay",)
    assert {"moss", "leav", "bay"} <= claim.words
    assert claim.denies


def test_names_quotations_and_negation() -> None:
    assert proper_names("Moss Line boats leave from Pellin.") == {"moss", "line", "pellin"}
    assert proper_names("The boat leaves.") == set()
    assert proper_names("ALL OF IT IS LOUD HERE") == set()
    assert quotations('It says "no dogs in the lounge" and "here".') == ("no dogs in the lounge",)
    assert normalise_quotation("“No–dogs’  in Lounge.”") == normalise_quotation('"no-dogs\' in lounge"')
    assert is_negated("Dogs are not allowed.")
    assert not is_negated("No, dogs are allowed.")
