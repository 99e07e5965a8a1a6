"""Answers held to labels, JSON and patterns: always in the form, on every path of decoding, also at the limit of tokens."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.errors import BadInput
from runners.inference.batched import BatchRow, generate_batch
from runners.inference.constraints.constraint import OutputConstraint
from runners.inference.constraints.sampler import AnswerState
from runners.inference.local import LocalGenerator, local_generator
from runners.inference.types import Sampling
from runners.models.resolve import Model

LABELS = ("card", "card_lost", "card lost", "Überweisung", "refund: pending", "a/b", 'say "no"')
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["intent", "slots", "count"],
    "properties": {
        "intent": {"enum": ["AddToPlaylist", "BookRestaurant", "GetWeather"]},
        "slots": {
            "type": "object",
            "patternProperties": {"^(?:city|artist|first name)$": {"type": "string"}},
            "additionalProperties": False,
        },
        "count": {"type": ["integer", "null"]},
        "names": {"type": "array", "items": {"type": "string"}},
    },
    "additionalProperties": False,
}
LAST_LINE = OutputConstraint("regex", r"(?s:.*)\n#### -?\$?\d[\d,]{0,12}(?:\.\d{1,6})?", tail="\n#### ")
CHATS = [[{"role": "user", "content": f"question {'and more ' * n}{n}?"}] for n in range(6)]


@pytest.fixture(scope="module", params=["auto", "plain"])
def generator(request: pytest.FixtureRequest, tiny: Model) -> LocalGenerator:
    return local_generator(tiny, kernels=request.param)


def is_valid(text: str) -> bool:
    jsonschema.validate(json.loads(text), SCHEMA)
    return True


def test_labels_are_the_only_answers(generator: LocalGenerator) -> None:
    constraint = OutputConstraint.of_labels(LABELS, also=("I do not know.",))
    free = generator.generate(CHATS, 8)
    held = generator.generate(CHATS, 8, constraint=constraint)
    assert not {answer.text for answer in free} & set(LABELS)
    assert {answer.text for answer in held} <= {*LABELS, "I do not know."}
    assert {answer.finish for answer in held} == {"stop"}
    drawn = generator.generate(CHATS * 4, 8, sampling=Sampling(1.5, seed=3), constraint=constraint)
    assert {answer.text for answer in drawn} <= {*LABELS, "I do not know."}
    assert len({answer.text for answer in drawn}) > 2
    # A limit below the longest label cuts none: the list itself bounds an answer.
    assert {a.text for a in generator.generate(CHATS, 1, constraint=constraint)} <= {
        *LABELS,
        "I do not know.",
    }


@pytest.mark.parametrize("limit", [48, 60, 90])
def test_json_is_whole_at_every_limit(generator: LocalGenerator, limit: int) -> None:
    constraint = OutputConstraint.of_schema(SCHEMA)
    answers = generator.generate(CHATS, limit, constraint=constraint)
    answers += generator.generate(CHATS, limit, sampling=Sampling(1.2, seed=1), constraint=constraint)
    assert all(is_valid(answer.text) for answer in answers)
    assert all(answer.completion_tokens <= limit for answer in answers)
    cut = [answer for answer in answers if answer.finish == "length"]
    assert all(answer.completion_tokens <= limit for answer in cut)


def test_schema_decides_its_white_space(tiny_generator: LocalGenerator) -> None:
    one_line = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
    constraint = OutputConstraint.of_schema({**SCHEMA, "x-guidance": one_line})
    for answer in tiny_generator.generate(CHATS, 80, constraint=constraint):
        assert is_valid(answer.text)
        assert answer.text.startswith('{"intent": "')


@pytest.mark.parametrize(
    "schema",
    [
        {"allOf": [{"multipleOf": 2}], "anyOf": [{"multipleOf": 3}], "oneOf": [{"multipleOf": 5}]},
        {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer", "multipleOf": 70}}},
        {"type": "array", "minItems": 2, "items": {"type": "integer", "minimum": 5, "maximum": 4711}},
    ],
)
def test_numbers_end_where_their_bounds_let_them(
    tiny_generator: LocalGenerator, schema: dict[str, Any]
) -> None:
    constraint = OutputConstraint.of_schema(schema)
    for answer in tiny_generator.generate(CHATS, 24, constraint=constraint):
        jsonschema.validate(json.loads(answer.text), schema)


def test_shortest_answer_over_the_limit_is_refused_before_anything_is_asked(
    generator: LocalGenerator,
) -> None:
    with pytest.raises(BadInput, match="the shortest answer of the form that is asked for has") as problem:
        generator.generate(CHATS, 3, constraint=OutputConstraint.of_schema(SCHEMA))
    assert "max_new_tokens" in str(problem.value)


def test_shortest_answer_of_alternatives_is_searched_for(generator: LocalGenerator) -> None:
    """The first way tried runs through the longest number; a date or a version has far fewer tokens than that."""
    pattern = r"(?:[0-9]{4}-[0-9]{2}-[0-9]{2}|v?[0-9]{1,15}(?:\.[0-9]{1,15})+)"
    constraint = OutputConstraint("regex", pattern, also=("not stated",))
    assert generator.forms.answer_tokens(constraint, 16) == 16
    answers = generator.generate(CHATS, 14, constraint=constraint)
    assert all(re.fullmatch(f"{pattern}|not stated", answer.text) for answer in answers)


def test_schema_that_cannot_be_enforced_is_refused(generator: LocalGenerator) -> None:
    schema = {"type": "array", "items": {"type": "string"}, "uniqueItems": True}
    constraint = OutputConstraint.of_schema(schema)
    assert "uniqueItems" in generator.forms.problem(constraint)
    with pytest.raises(BadInput, match="uniqueItems"):
        generator.generate(CHATS[:1], 30, constraint=constraint)
    assert generator.forms.problem(OutputConstraint.of_schema(SCHEMA)) == ""


def test_last_line_is_written_when_the_tokens_run_out(generator: LocalGenerator) -> None:
    for answer in generator.generate(CHATS, 40, constraint=LAST_LINE):
        assert re.search(r"(?:^|\n)#### -?\$?\d[\d,]*(?:\.\d+)?$", "\n" + answer.text), answer.text
        assert answer.completion_tokens <= 40


def test_streams_and_served_batches_hold_each_row_to_its_own_form(generator: LocalGenerator) -> None:
    schema, labels = OutputConstraint.of_schema(SCHEMA), OutputConstraint.of_labels(LABELS)
    pieces = list(generator.stream(CHATS[0], 64, constraint=schema))
    assert is_valid("".join(pieces))
    assert list(generator.stream(CHATS[1], 64, constraint=labels))
    forms = [schema, labels, None, LAST_LINE, schema]
    rows = [
        BatchRow(
            prompt=generator.prompt(chat, 64),
            limit=64,
            sampling=Sampling(0.9 * (n == 4), seed=n),
            constraint=form,
        )
        for n, (chat, form) in enumerate(zip(CHATS, forms, strict=False))
    ]
    answers = generate_batch(generator, rows)
    assert is_valid(answers[0].text)
    assert answers[1].text in LABELS
    assert answers[2].text == generator.generate([CHATS[2]], 64)[0].text
    assert is_valid(answers[4].text)


def test_one_row_and_batch_choose_alike(generator: LocalGenerator) -> None:
    constraint = OutputConstraint.of_schema(SCHEMA)
    together = [answer.text for answer in generator.generate(CHATS, 60, constraint=constraint)]
    assert together == [generator.generate([chat], 60, constraint=constraint)[0].text for chat in CHATS]


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(
        st.text(min_size=1, max_size=12).filter(lambda t: t == t.strip() and t), min_size=2, max_size=5
    ),
    seed=st.integers(0, 9),
)
def test_any_labels_are_answers(tiny_generator: LocalGenerator, labels: list[str], seed: int) -> None:
    held = OutputConstraint.of_labels(labels)
    (answer,) = tiny_generator.generate(CHATS[:1], 4, sampling=Sampling(1.0, seed=seed), constraint=held)
    assert answer.text in labels


@pytest.fixture(scope="module")
def tiny_generator(tiny: Model) -> LocalGenerator:
    return local_generator(tiny)


def test_reasoning_is_free_and_the_answer_after_it_is_not(tiny_generator: LocalGenerator) -> None:
    constraint = OutputConstraint.of_labels(LABELS)
    compiler = tiny_generator.forms.compiler
    tokens = tiny_generator.tokenizer.encode
    state = AnswerState(compiler, constraint, 20, 200, tiny_generator.pieces([]))
    first, *rest = tokens("<think>card or not", add_special_tokens=False)
    assert state.may_open_reasoning
    assert state.opens_reasoning(first, tiny_generator.tokenizer.decode([first]))
    state.take(first, opens=True)
    for token in rest:
        assert state.free
        assert state.take(token) == token
    for token in tokens(" at all</think>", add_special_tokens=False):
        state.take(token)
    assert not state.free
    allowed = state.allowed()
    assert allowed[tokens("c", add_special_tokens=False)[0]]
    assert not allowed[tokens("z", add_special_tokens=False)[0]]


@pytest.mark.real
def test_real_model_answers_with_labels_and_json(smollm: Model) -> None:
    generator = local_generator(smollm)
    labels = ("lost_card", "top_up_failed", "exchange_rate")
    asks = ["I cannot find my card any more", "why did my top up fail?", "what rate do you use for dollars?"]
    chats = [[{"role": "user", "content": f"{ask} Label: {', '.join(labels)}?"}] for ask in asks]
    answers = generator.generate(chats, 16, constraint=OutputConstraint.of_labels(labels))
    assert {answer.text for answer in answers} <= set(labels)
    answers = generator.generate(chats, 48, constraint=OutputConstraint.of_schema(SCHEMA))
    assert all(is_valid(answer.text) for answer in answers)
