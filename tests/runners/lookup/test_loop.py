"""The loop of one answer: requests with tools, limits, resumption, and what a server or a model does wrong."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rag.errors import BadInput, CannotRun
from rag.grounding.refusal import RefusalThreshold
from runners.data.formats import Message
from runners.inference.constraints.constraint import OutputConstraint
from runners.inference.servers.spending import TokenPrice
from runners.inference.types import Completion, Lookups
from runners.lookup.generator import CALLS_AT_ONCE, LookupGenerator
from runners.lookup.tool_models import CALL_TOKENS
from runners.run_folder import read_journal
from tests.support.tool_model import calling, in_turn, passages, question, reader, results

ASKED: list[Message] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Amber berths?"},
]
READ = ("read", {"document": "amber.md"})
REFUSAL = "I could not find that in our documents."


def ask(generator: LookupGenerator, chat: list[Message] = ASKED, tokens: int = 40) -> Completion:
    return generator.generate([chat], tokens)[0]


def looked_up(completion: Completion) -> Lookups:
    assert completion.lookups is not None
    return completion.lookups


def test_model_greps_reads_and_answers(looking_up: Callable[..., LookupGenerator], server: Any) -> None:
    server.answer = reader
    done = ask(looking_up())
    assert done.text == "The Amber Pier has 20 berths."
    assert looked_up(done).to_json() == {"requests": 4, "calls": 2, "own": 2, "passages": 1}
    *looking, last = server.seen
    assert [body["messages"][0]["role"] for body in looking] == ["system"] * 3
    assert looking[0]["messages"][0]["content"].startswith("Be brief.\n\nCall answer when")
    assert {(body["max_tokens"], body["tool_choice"]) for body in looking} == {(CALL_TOKENS, "required")}
    assert all(len(body["tools"]) == 4 for body in looking), "without an index there is nothing to search"
    assert last["messages"][0] == ASKED[0], "the answer is asked for as in an arm with a search"
    assert passages(last) == "\n\n".join(results(looking[-1]))
    assert not {"tools", "tool_choice"} & set(last)
    assert last["max_tokens"] == 40
    own = [len(message["content"].split()) for body in server.seen for message in body["messages"]]
    own += [len(json.dumps(body["tools"]).split()) for body in looking]
    assert done.prompt_tokens == sum(own)
    assert done.completion_tokens == 6
    assert done.seconds > 0
    assert done.calls == ()


def test_parallel_calls_are_carried_out_in_order(
    looking_up: Callable[..., LookupGenerator], server: Any
) -> None:
    both = calling(READ, ("read", {"document": "birch.md"}), ("list_documents", "{}"))
    server.answer = in_turn(both, "Both.")
    done = ask(looking_up())
    turns = server.seen[-2]["messages"]
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant", "tool", "tool", "tool"]
    assert [turn["tool_call_id"] for turn in turns[3:]] == ["c0", "c1", "c2"]
    assert [call["id"] for call in turns[2]["tool_calls"]] == ["c0", "c1", "c2"]
    assert "20 berths" in turns[3]["content"]
    assert "31 berths" in turns[4]["content"]
    assert looked_up(done).calls == 3


def test_too_many_calls_at_once_are_not_all_carried_out(
    looking_up: Callable[..., LookupGenerator], server: Any
) -> None:
    server.answer = in_turn(
        calling(*[("grep", {"pattern": f"a{n}"}) for n in range(CALLS_AT_ONCE + 3)]), "Done."
    )
    done = ask(looking_up())
    assert looked_up(done).problems == {"too many": 3}
    assert results(server.seen[-2])[-1].startswith("Not carried out: at most 8")


def test_ids_that_a_server_leaves_out_or_repeats_are_replaced(
    looking_up: Callable[..., LookupGenerator], server: Any
) -> None:
    without = calling(READ, READ)
    for call in without["tool_calls"]:
        del call["id"]
    others = [calling(("read", {"document": f"{name}.md"})) for name in ("birch", "notes/cedar")]
    server.answer = in_turn(without, *others, "Done.")
    ask(looking_up())
    turns = server.seen[-2]["messages"]
    ids = [call["id"] for turn in turns for call in turn.get("tool_calls", ())]
    assert len(set(ids)) == len(ids) == 4
    assert ids == [turn["tool_call_id"] for turn in turns if turn["role"] == "tool"]


@pytest.mark.parametrize(
    "sent",
    [
        [{"id": "a", "function": {"name": "read", "arguments": '{"document": "amb'}}],
        [{"id": "a", "function": {"name": "open", "arguments": "{}"}}],
        [{"id": "a", "function": {"name": "read", "arguments": {"document": "amber.md"}}}],
        [{"id": "a", "function": "read"}],
        [{"id": 7}],
        ["read"],
    ],
)
def test_malformed_calls_are_answered_and_sent_back_as_valid_ones(
    looking_up: Callable[..., LookupGenerator], server: Any, sent: list[Any]
) -> None:
    message = {"role": "assistant", "content": None, "tool_calls": sent}
    server.answer = in_turn(message, "Done.")
    done = ask(looking_up())
    assert done.text == "Done."
    (call,) = server.seen[-2]["messages"][2]["tool_calls"]
    assert isinstance(json.loads(call["function"]["arguments"]), dict)
    arguments = (
        sent[0]["function"]["arguments"]
        if isinstance(sent[0], dict) and "name" in sent[0].get("function", "")
        else ""
    )
    carried_out = isinstance(arguments, dict)
    assert bool(looked_up(done).problems) is not carried_out


def test_invented_results_are_no_results(looking_up: Callable[..., LookupGenerator], server: Any) -> None:
    server.answer = lambda body: (
        "[tool result] amber.md:3: The Amber Pier has 900 berths.\nThe Amber Pier has 900 berths."
    )
    done = ask(looking_up())
    assert looked_up(done).hits == ()
    assert looked_up(done).calls == 0
    assert looked_up(done).requests == 2
    assert passages(server.seen[-1]) == "(none found)"


def test_endless_loop_ends_at_the_limit_of_steps(
    looking_up: Callable[..., LookupGenerator], server: Any
) -> None:
    server.answer = lambda body: (
        calling(READ, ("grep", {"pattern": f"a{len(results(body))}"}))
        if "tools" in body
        else "The Amber Pier has 20 berths."
    )
    done = ask(looking_up(steps=5))
    assert done.text == "The Amber Pier has 20 berths."
    assert looked_up(done).limit == "steps"
    assert (looked_up(done).requests, looked_up(done).calls, looked_up(done).repeated) == (6, 10, 4)
    shown = results(server.seen[-2])
    assert shown[2] == shown[4] == "This call was made before: its result is above."
    assert passages(server.seen[-1]).count("20 berths") == 1


def test_reply_that_asks_for_nothing_new_ends_the_loop(
    looking_up: Callable[..., LookupGenerator], server: Any
) -> None:
    server.answer = lambda body: calling(READ) if "tools" in body else "The Amber Pier has 20 berths."
    done = ask(looking_up())
    assert done.text == "The Amber Pier has 20 berths."
    counts = {"requests": 3, "calls": 2, "own": 1, "passages": 1, "repeated": 1}
    assert looked_up(done).to_json() == counts


def test_model_that_calls_without_tools_gives_an_empty_answer(
    looking_up: Callable[..., LookupGenerator], server: Any
) -> None:
    server.answer = lambda body: calling(READ)
    done = ask(looking_up(steps=1))
    assert (done.text, done.finish) == ("", "stop")
    assert (looked_up(done).limit, looked_up(done).calls) == ("steps", 1)


def test_calls_that_a_server_leaves_in_the_text_are_read(
    looking_up: Callable[..., LookupGenerator], server: Any
) -> None:
    written = '<tool_call>\n{"name": "read", "arguments": {"document": "amber.md"}}\n</tool_call>'
    server.answer = in_turn(written, written)
    done = ask(looking_up(steps=1))
    assert "20 berths" in passages(server.seen[-1])
    assert done.text == "", "a call is no answer"
    assert looked_up(done).calls == 1


def test_limits_of_tokens_seconds_and_money(looking_up: Callable[..., LookupGenerator], server: Any) -> None:
    def answer(body: dict[str, Any]) -> Any:
        time.sleep(0.05)
        seen = len(results(body))
        return calling(("grep", {"pattern": f"berths|{seen}"})) if "tools" in body else "Twenty."

    server.answer = answer
    tokens = ask(looking_up(tokens=1000, steps=100))
    assert looked_up(tokens).limit == "tokens"
    before_last = tokens.prompt_tokens + tokens.completion_tokens - server.seen[-1]["messages"].__len__()
    assert looked_up(tokens).requests > 2
    assert before_last < 2000
    assert looked_up(ask(looking_up(seconds=0.12, steps=100))).limit == "seconds"
    price = TokenPrice(read=1000.0, written=1000.0)
    paid = ask(looking_up(usd=0.5, steps=100, price=price))
    assert looked_up(paid).limit == "usd"
    sent = [
        sum(len(m["content"].split()) for m in body["messages"])
        + len(json.dumps(body.get("tools", "")).split())
        for body in server.seen
    ]
    count = looked_up(paid).requests
    assert price.usd(sum(sent[-count:-1]), 0) <= 0.5
    with pytest.raises(BadInput, match="the plan has no price of tern-2"):
        looking_up(usd=0.5)


def test_first_request_is_sent_whatever_the_limits(
    looking_up: Callable[..., LookupGenerator], server: Any
) -> None:
    server.answer = in_turn("I know.")
    done = ask(looking_up(steps=1, tokens=1000, seconds=0.0001))
    assert (done.text, looked_up(done).limit, looked_up(done).requests) == ("I know.", "", 2)


def test_results_that_the_model_cannot_read_are_left_out(
    looking_up: Callable[..., LookupGenerator], server: Any
) -> None:
    too_long = {"error": {"message": "This model's maximum context length is 100 tokens"}}
    server.answer = in_turn(calling(READ, ("read", {"document": "birch.md"})), "Not enough room.")
    refused = lambda handler: handler.reply(400, too_long)  # noqa: E731
    server.faults = [None, refused, refused]
    done = ask(looking_up())
    assert done.text == "Not enough room."
    assert looked_up(done).limit == "context"
    assert "20 berths" in passages(server.seen[-1])
    assert "31 berths" not in passages(server.seen[-1]), "as much as fits, the first found first"


def test_server_that_asks_to_wait_is_asked_again(
    looking_up: Callable[..., LookupGenerator], server: Any
) -> None:
    server.answer = reader
    busy = lambda handler: handler.reply(429, {"error": {"message": "slow down"}}, {"Retry-After": "0"})  # noqa: E731
    server.faults = [busy, None, busy, busy]
    notes: list[str] = []
    done = ask(looking_up(on_note=notes.append))
    assert done.text == "The Amber Pier has 20 berths."
    assert looked_up(done).requests == 4
    assert len(server.seen) == 7
    assert sum("429" in note for note in notes) == 3


def test_nothing_is_paid_twice_after_an_interruption(
    looking_up: Callable[..., LookupGenerator], server: Any, tmp_path: Path
) -> None:
    journal = tmp_path / "trial" / "lookups.jsonl"
    server.answer = reader
    broken = lambda handler: handler.reply(503, {"error": {"message": "down"}})  # noqa: E731
    server.faults = [None, None, None, *[broken] * 3]
    with pytest.raises(CannotRun, match="503"):
        ask(looking_up(journal))
    before = len(server.seen)
    rows = read_journal(journal)
    assert [row["kind"] for row in rows] == ["tools", "reply", "results", "reply", "results"]
    done = ask(looking_up(journal))
    assert len(server.seen) == before + 2, (
        "the two requests before the failure are not sent again, nor is the first question"
    )
    assert done.text == "The Amber Pier has 20 berths."
    again = ask(looking_up(journal))
    assert len(server.seen) == before + 2
    assert (again.text, again.seconds, again.lookups) == (done.text, done.seconds, done.lookups)
    assert len(read_journal(journal)) == len(rows) + 2
    assert [row["results"][0]["name"] for row in rows if row["kind"] == "results"] == ["grep", "read"]


def test_torn_journal_costs_the_torn_row_alone(
    looking_up: Callable[..., LookupGenerator], server: Any, tmp_path: Path
) -> None:
    journal = tmp_path / "lookups.jsonl"
    server.answer = reader
    ask(looking_up(journal))
    text = journal.read_text("utf-8")
    journal.write_text(text[: text.rstrip().rindex("\n") + 40], "utf-8")
    before = len(server.seen)
    assert ask(looking_up(journal)).text == "The Amber Pier has 20 berths."
    assert len(server.seen) == before + 1


def test_changed_document_is_asked_about_again(
    looking_up: Callable[..., LookupGenerator], server: Any, tmp_path: Path, documents: Path
) -> None:
    journal = tmp_path / "lookups.jsonl"
    server.answer = reader
    ask(looking_up(journal))
    before = len(server.seen)
    (documents / "amber.md").write_text("# Amber\n\nThe Amber Pier has 99 berths.\n", "utf-8")
    assert ask(looking_up(journal)).text == "The Amber Pier has 99 berths."
    assert len(server.seen) == before + 3, "the first request is the same"


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "registry/tiny:2b does not support tools"),
        (400, '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'),
        (500, "tools param requires --jinja flag"),
    ],
)
def test_endpoint_without_tools_is_asked_once_and_named(
    looking_up: Callable[..., LookupGenerator], server: Any, tmp_path: Path, status: int, message: str
) -> None:
    server.faults = [lambda handler: handler.reply(status, {"error": {"message": message}})] * 12
    with pytest.raises(BadInput) as caught:
        looking_up(tmp_path / "lookups.jsonl").generate([ASKED] * 5, 40)
    assert "tern-2 cannot look things up by itself: " in caught.value.message
    assert message[:30] in caught.value.message
    assert "\n" not in caught.value.message
    assert {question(body) for body in server.seen} == {"Which documents are there?"}
    assert len(server.seen) == (1 if status == 400 else 3), "a fault of the server may be temporary"


def test_whether_tools_are_taken_is_asked_once_a_trial(
    looking_up: Callable[..., LookupGenerator], server: Any, tmp_path: Path
) -> None:
    journal = tmp_path / "lookups.jsonl"
    server.answer = in_turn("Yes.")
    for n in range(3):
        looking_up(journal).generate([[{"role": "user", "content": f"What of {n}?"}]] * 2, 40)
    asked = [question(body) for body in server.seen]
    assert asked.count("Which documents are there?") == 1
    looking_up().generate([ASKED], 40)
    assert [question(body) for body in server.seen].count("Which documents are there?") == 1, (
        "an answer just asks"
    )


def test_server_that_does_not_show_the_tools_is_noted(
    looking_up: Callable[..., LookupGenerator], server: Any, tmp_path: Path
) -> None:
    """As llama-server does with a template that takes none."""
    usage = {"prompt_tokens": 14, "completion_tokens": 2}
    choice = {"index": 0, "message": {"role": "assistant", "content": "No idea."}, "finish_reason": "stop"}
    server.faults = [lambda handler: handler.reply(200, {"choices": [choice], "usage": usage})]
    server.answer = in_turn("Yes.")
    notes: list[str] = []
    ask(looking_up(tmp_path / "lookups.jsonl", on_note=notes.append))
    (note,) = notes
    assert note.startswith("tern-2 seems not to be shown the tools: its server counts 14 tokens")
    ask(looking_up(tmp_path / "other.jsonl", on_note=notes.append))
    assert len(notes) == 1, "a prompt with the tools is longer"


def test_answers_come_several_at_a_time_in_order(
    looking_up: Callable[..., LookupGenerator], server: Any, tmp_path: Path
) -> None:
    server.answer = reader
    chats: list[list[Message]] = [
        [{"role": "user", "content": f"{name} berths?"}] for name in ("Amber", "Birch", "Cedar")
    ]
    batches: list[list[int]] = []
    done = looking_up().generate(chats, 40, lambda batch, answers: batches.append(batch), known={1})
    assert ["20" in done[0].text, "42" in done[1].text] == [True, True]
    assert sorted(batches) == [[0], [2]]


def test_sentences_that_repeat_the_instructions_are_left_out(
    looking_up: Callable[..., LookupGenerator], server: Any
) -> None:
    told = " ".join(f"rule{n}" for n in range(40))
    server.answer = in_turn(f"Gladly. My instructions are: {told}. The pier has 20 berths.")
    chat: list[Message] = [
        {"role": "system", "content": f"Follow these: {told}."},
        {"role": "user", "content": "Berths?"},
    ]
    done = ask(looking_up(), chat)
    assert done.text == "Gladly. The pier has 20 berths."
    assert looked_up(done).withheld == 1
    server.answer = lambda body: body["messages"][0]["content"]
    assert "Never repeat" not in ask(looking_up()).text


def test_answer_comes_in_one_piece(looking_up: Callable[..., LookupGenerator], server: Any) -> None:
    server.answer = reader
    stream = looking_up().stream(ASKED, 40)
    assert list(stream) == ["The Amber Pier has 20 berths."]
    assert looked_up(stream.completion).calls == 2
    assert not any(body.get("stream") for body in server.seen)


def searching(*queries: str) -> Callable[[dict[str, Any]], Any]:
    """Return a model that searches for these texts in turn, and answers with the passages that it is given."""

    def answer(body: dict[str, Any]) -> Any:
        own = len(results(body)) - 1
        call = ("search", {"query": queries[own]}) if 0 <= own < len(queries) else ("answer", {})
        return calling(call) if "tools" in body else passages(body)

    return answer


def test_question_is_searched_for_before_the_first_request(
    looking_up: Callable[..., LookupGenerator], make_search: Callable[..., Any], server: Any
) -> None:
    server.answer = searching()
    search = make_search()
    done = ask(looking_up(search=search))
    first, last = server.seen
    found = search().find(["Amber berths?"])[0]
    assert "20 berths" in found.passages
    (call,) = first["messages"][2]["tool_calls"]
    assert call["function"] == {"name": "search", "arguments": '{"query": "Amber berths?"}'}
    assert results(first) == [found.passages]
    chat = [ASKED[0], {"role": "user", "content": f"Passages:\n{found.passages}\n\nQuestion: Amber berths?"}]
    assert last["messages"] == chat, "the prompt of an arm with a search"
    assert looked_up(done).hits == found.hits
    assert looked_up(done).to_json() == {"requests": 2, "calls": 1, "own": 0, "passages": 1}


def test_question_that_follows_others_is_not_searched_for(
    looking_up: Callable[..., LookupGenerator], make_search: Callable[..., Any], server: Any
) -> None:
    server.answer = lambda body: calling(("answer", {})) if "tools" in body else "Nine."
    earlier: list[Message] = [{"role": "user", "content": "Birch?"}, {"role": "assistant", "content": "31."}]
    done = ask(looking_up(search=make_search()), [*earlier, {"role": "user", "content": "And when?"}])
    assert (looked_up(done).calls, looked_up(done).own) == (0, 0)
    assert server.seen[-1]["messages"][:2] == earlier


def test_search_of_its_own_shows_what_was_not_shown(
    looking_up: Callable[..., LookupGenerator], make_search: Callable[..., Any], server: Any
) -> None:
    server.answer = searching("Birch berths", "the berths of the Amber Pier")
    done = ask(looking_up(search=make_search()))
    assert looked_up(done).to_json() == {"requests": 4, "calls": 3, "own": 2, "passages": 3}
    names = [hit.chunk.doc for hit in looked_up(done).hits]
    assert names == ["amber.md", "birch.md", "notes/cedar.md"], "Amber is not shown again"
    assert done.text.count("berths.") == 3


def test_refusal_of_the_first_search_stands_until_something_else_is_found(
    looking_up: Callable[..., LookupGenerator], make_search: Callable[..., Any], server: Any
) -> None:
    always = RefusalThreshold(weights={}, bias=-1.0, how="default")
    server.answer = searching()
    done = ask(looking_up(search=make_search(always)))
    assert done.text == REFUSAL
    assert looked_up(done).requests == len(server.seen) == 1, (
        "as an arm with a search, which does not ask then"
    )
    server.answer = searching("Birch berths")
    assert "31 berths" in ask(looking_up(search=make_search(always))).text


def test_index_that_cannot_be_opened_leaves_the_other_tools(
    looking_up: Callable[..., LookupGenerator], server: Any
) -> None:
    def broken() -> Any:
        raise OSError("berths")

    server.answer = in_turn("", calling(READ), "Twenty.")
    done = ask(looking_up(search=broken))
    assert done.text == "Twenty."
    assert len(server.seen[0]["tools"]) == 5
    assert looked_up(done).problems == {"failed": 1}
    assert (looked_up(done).calls, looked_up(done).own) == (2, 1)


def test_form_is_asked_of_the_answer_alone(looking_up: Callable[..., LookupGenerator], server: Any) -> None:
    server.answer = in_turn("{}")
    form = OutputConstraint.of_schema({"type": "object"})
    looking_up().generate([ASKED], 40, constraint=form)
    asked = [body["response_format"]["json_schema"]["schema"] for body in server.seen]
    names = [call["properties"]["name"]["const"] for call in asked[0]["anyOf"]]
    assert names == ["list_documents", "grep", "read", "answer"]
    assert asked[1] == {"type": "object"}
