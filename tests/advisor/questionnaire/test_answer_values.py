"""Reading single answers, as typed or from a file."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.questionnaire.answers import read_answer
from rag.errors import BadInput


@pytest.mark.parametrize(
    ("key", "given", "value"),
    [
        ("gpu_memory_gib", "24 GB", 24),
        ("gpu_memory_gib", "79.1GiB", 79.1),
        ("gpu_memory_gib", "24G", 24),
        ("model_params_b", "7B", 7),
        ("model_params_b", 0.135, 0.135),
        ("labelled_examples", "10k", 10_000),
        ("labelled_examples", "1,471", 1471),
        ("unlabelled_tokens", "1.2B", 1_200_000_000),
        ("corpus_tokens", 0, 0),
        ("prompting_pass_rate", "80%", 0.8),
        ("prompting_pass_rate", 1, 1.0),
        ("must_cite", "Yes", True),
        ("must_cite", False, False),
        ("facts_change", "Fast", "fast"),
        ("gpu_kind", False, "none"),
        ("latency_p95_ms", "none", "none"),
        ("budget_usd", "100 USD", 100),
        ("goal", " answer mail ", "answer mail"),
    ],
)
def test_read_answer_accepts_units_and_words(key: str, given: Any, value: Any) -> None:
    assert read_answer(key, given) == value


@pytest.mark.parametrize("given", [None, "", "?", "unknown", "null"])
def test_read_answer_returns_none_for_unknown(given: Any) -> None:
    assert read_answer("must_cite", given) is None


@pytest.mark.parametrize(
    ("key", "given", "hint"),
    [
        ("behaviour_gap", "hihg", "did you mean high"),
        ("must_cite", "perhaps", "yes or no"),
        ("labelled_examples", -1, "a whole number"),
        ("labelled_examples", "2.5", "a whole number"),
        ("labelled_examples", True, "a whole number"),
        ("prompting_pass_rate", 80, "from 0 to 1"),
        ("model_params_b", 0, "at least 0.001"),
        ("gpu_memory_gib", "24 apples", "a number"),
        ("ram_gib", float("nan"), "a number"),
        ("goal", 7, "text"),
        ("facts_chnage", "slow", "did you mean facts_change"),
    ],
)
def test_read_answer_error_says_what_is_allowed(key: str, given: Any, hint: str) -> None:
    with pytest.raises(BadInput) as refused:
        read_answer(key, given)
    assert key in refused.value.message
    assert hint in refused.value.hint
