"""A streamed answer equals the answer of the trial: the same words, citations and refusals."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Generator as Running
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rag.grounding.refusal import RefusalThreshold
from runners.arms.answer import Answer, answer_all, finish_answer, stream_answer, stream_of
from runners.arms.retriever import Retriever
from runners.data.examples import Example
from runners.data.questions import Question
from runners.inference.local import LocalGenerator
from runners.inference.types import Completion
from runners.models.resolve import Model
from runners.plan.schema import parse_plan
from runners.plan.steps import EvaluateStep

RAG, PLAIN = EvaluateStep(arm="rag", retrieval=True), EvaluateStep(arm="few-shot", shots=2)
PLAN = parse_plan(
    {
        "name": "p",
        "choice": "rag",
        "model": {"name": "m"},
        "max_new_tokens": 12,
        "data": {"documents": "d", "questions": "q", "examples": "e"},
        "weights": {"fact_recall": 1},
        "steps": [{"kind": "index"}, PLAIN.model_dump(), RAG.model_dump()],
        "prompts": {"refusals": ["Not in our papers."]},
    }
)
QUESTION = Question("a", "How many berths has the Heron Pier?")


@pytest.fixture(scope="module")
def generator(tiny: Model, adapter: Path) -> LocalGenerator:
    """The tiny model with weights that make it generate words."""
    return LocalGenerator(tiny, adapter, "float32")


def collect(running: Running[str, None, Answer]) -> tuple[list[str], Answer]:
    """Return the pieces and the final answer of a stream."""
    pieces = []
    while True:
        try:
            pieces.append(next(running))
        except StopIteration as end:
            return pieces, end.value


@pytest.mark.parametrize("arm", [RAG, PLAIN])
def test_stream_ends_in_same_answer_as_batch(
    generator: LocalGenerator,
    make_retriever: Callable[..., Retriever],
    arm: EvaluateStep,
    examples: tuple[Example, ...],
) -> None:
    retriever = make_retriever(k=1) if arm.retrieval else None
    shots = examples[: arm.shots]
    (whole,) = answer_all(PLAN, arm, [QUESTION], lambda: generator, retriever, shots)
    pieces, answer = collect(stream_answer(PLAN, arm, QUESTION, lambda: generator, retriever, shots))
    assert len(pieces) > 1
    assert "".join(pieces) == answer.marked
    assert bool(answer.hits) == arm.retrieval
    assert replace(answer, completion=whole.completion) == whole
    assert replace(answer.completion, seconds=0) == replace(whole.completion, seconds=0)


def test_refusal_is_one_piece_without_asking_model(make_retriever: Callable[..., Retriever]) -> None:
    always = RefusalThreshold(weights={}, bias=-1.0, how="default")

    def model() -> Any:
        raise AssertionError("the language model was loaded")

    pieces, answer = collect(stream_answer(PLAN, RAG, QUESTION, model, make_retriever(always)))
    assert pieces == [answer.text] == ["Not in our papers."]
    assert answer.refused
    assert answer_all(PLAN, RAG, [QUESTION], model, make_retriever(always)) == [answer]


def test_interrupted_stream_releases_model(generator: LocalGenerator) -> None:
    running = stream_answer(PLAN, PLAIN, QUESTION, lambda: generator, None)
    first = next(running)
    running.close()
    pieces, _ = collect(stream_answer(PLAN, PLAIN, QUESTION, lambda: generator, None))
    assert pieces[0] == first


def test_lists_of_numbers_in_json_are_no_citation_marks() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "array", "items": {"type": "integer"}}}}
    plan = parse_plan(
        PLAN.model_dump(mode="json", by_alias=True) | {"checks": [{"kind": "json_schema", "value": schema}]}
    )
    text = '{"n": [1, 2]}'
    completion = Completion(text, 3, 9, 0.1, "stop")
    assert finish_answer(plan, QUESTION, None, [], completion).text == text
    assert finish_answer(PLAN, QUESTION, None, [], completion).text == '{"n":}'
    streamed = stream_of(plan, QUESTION, None)
    assert streamed.add(text) + streamed.finish(text, text) == text
