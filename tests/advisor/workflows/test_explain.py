"""`tunewise explain METHOD`: usual spellings are understood, and the name is given in full."""

from __future__ import annotations

import pytest

from advisor.methods.registry import methods_by_name
from advisor.workflows.explain import METHOD_ALIASES, METHOD_TITLES, explain_topic
from rag.errors import BadInput


@pytest.mark.parametrize(
    ("topic", "title"),
    [("RAG", "retrieval-augmented generation"), ("LoRA", "low-rank adaptation"), ("Few shot", "examples")],
)
def test_methods_are_explained_by_their_usual_names(
    topic: str, title: str, capsys: pytest.CaptureFixture[str]
) -> None:
    explain_topic(topic, as_json=False)
    assert title in capsys.readouterr().out


def test_every_method_has_a_full_name_and_aliases_name_methods() -> None:
    assert set(METHOD_TITLES) <= set(methods_by_name())
    assert set(METHOD_ALIASES.values()) <= set(methods_by_name())
    with pytest.raises(BadInput, match="'ragg'"):
        explain_topic("ragg", as_json=False)
