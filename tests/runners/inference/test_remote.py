"""Generation by a server: what is sent, what is tried again, what is refused, and that the key stays secret."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from rag.errors import BadInput, CannotRun, Problem
from runners.inference.http_client import Backoff, RequestLimits, RequestPacer, retry_after
from runners.inference.remote import RemoteGenerator
from runners.inference.types import Completion, Sampling
from runners.models import endpoint

CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Is it open?"}]
KEY = "sk-not-a-real-key"
SOON = Backoff(tries=3, first=0.01, longest=0.02)


@pytest.fixture
def make(server: Any) -> Iterator[Callable[..., RemoteGenerator]]:
    """Return the maker of generators that ask the fake server, quickly."""
    made: list[RemoteGenerator] = []

    def maker(url: str = "", key: str = KEY, on_note: Any = None, **limits: Any) -> RemoteGenerator:
        limited = RequestLimits(**{"backoff": SOON, **limits})
        made.append(RemoteGenerator(url or server.url, "tern-2", limited, 7, key, on_note))
        return made[-1]

    yield maker
    for generator in made:
        generator.close()


def answers(status: int, body: Any = "", **headers: str) -> Callable[[Any], None]:
    """A fault that answers with a status."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler: handler.reply(status, body, named)


def hang_up(handler: Any) -> None:
    """A fault that closes the connection without a word."""
    handler.close_connection = True
    handler.connection.close()


def late(handler: Any) -> None:
    """A fault that answers too late."""
    time.sleep(0.6)
    answers(200, {"choices": [{"message": {"content": "late"}}]})(handler)


def test_an_answer_comes_with_its_tokens_and_the_request_is_greedy(server: Any, make: Any) -> None:
    server.answer = lambda body: "  Yes, until nine.\n"
    (answer,) = make().generate([CHAT], 20)
    assert (answer.text, answer.prompt_tokens, answer.completion_tokens) == ("Yes, until nine.", 5, 3)
    assert answer.finish == "stop"
    assert answer.seconds > 0
    sent = server.seen[0]
    assert {k: sent[k] for k in ("model", "messages", "max_tokens", "temperature", "seed")} == {
        "model": "tern-2",
        "messages": CHAT,
        "max_tokens": 20,
        "temperature": 0.0,
        "seed": 7,
    }
    assert server.keys == [f"Bearer {KEY}"]


def test_what_is_known_is_not_sent(server: Any, make: Any) -> None:
    asked = [[{"role": "user", "content": f"Is pier {n} open?"}] for n in range(5)]
    server.answer = lambda body: body["messages"][-1]["content"]
    heard: list[int] = []
    answers = make().generate(asked, 20, lambda batch, made: heard.extend(batch), known={0, 3})
    assert [answer.text for answer in answers] == [f"Is pier {n} open?" for n in (1, 2, 4)]
    assert (sorted(heard), len(server.seen)) == ([1, 2, 4], 3)
    assert make().generate(asked, 20, known=set(range(5))) == []


def test_sampling_is_sent_as_it_is_asked_for(server: Any, make: Any) -> None:
    make(key="").generate([CHAT], 5, sampling=Sampling(0.7, 0.9, 3, ("\n",)))
    sent = server.seen[0]
    assert (sent["temperature"], sent["top_p"], sent["seed"], sent["stop"]) == (0.7, 0.9, 3, ["\n"])
    assert server.keys == [None]


def test_a_stream_gives_the_same_words_in_pieces(server: Any, make: Any) -> None:
    server.answer = lambda body: "Yes, until nine. "
    stream = make().stream(CHAT, 20)
    pieces = list(stream)
    assert len(pieces) > 1
    assert "".join(pieces) == stream.completion.text == "Yes, until nine."
    assert (stream.completion.completion_tokens, stream.completion.finish) == (3, "stop")


def test_a_stream_that_breaks_off_is_no_answer(server: Any, make: Any) -> None:
    server.finished = False
    with pytest.raises(CannotRun, match="broke off in the middle"):
        list(make().stream(CHAT, 20))


@pytest.mark.parametrize(
    "fault",
    [
        answers(429, {"error": {"message": "slow down"}}, Retry_After="0"),
        answers(500, "oops"),
        answers(503),
        answers(408),
        answers(409),
        hang_up,
        answers(200, "<html>hello</html>"),
        answers(200, "[1]"),
    ],
    ids=["429", "500", "503", "408", "409", "cut", "not-json", "not-an-object"],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_what_may_pass_is_tried_again(server: Any, make: Any, fault: Any, streamed: bool) -> None:
    server.faults = [fault, fault]
    generator = make()
    answer = generator.stream(CHAT, 5).finish() if streamed else generator.generate([CHAT], 5)[0]
    assert answer.text == "Aye."
    assert (len(server.seen), generator.retries) == (3, 2)


def test_retry_after_is_waited_for_and_too_long_a_wait_is_not(server: Any, make: Any) -> None:
    server.faults = [answers(429, "", Retry_After="0.3")]
    started = time.monotonic()
    (answer,) = make().generate([CHAT], 5)
    assert time.monotonic() - started >= 0.3 > answer.seconds > 0
    server.faults = [answers(429, "", Retry_After="86400")]
    with pytest.raises(CannotRun, match="asks to wait 86400 s"):
        make().generate([CHAT], 5)


def test_a_server_that_goes_on_failing_is_given_up_on(server: Any, make: Any) -> None:
    server.faults = [answers(500, {"error": {"message": "out of\n\x1b[31mmemory"}})] * 9
    with pytest.raises(CannotRun) as caught:
        make().generate([CHAT], 5)
    assert f"tern-2 at 127.0.0.1:{server.server_port} answered 500: out of [31mmemory (3 tries)" == str(
        caught.value.message
    )


def test_a_slow_server_and_one_that_is_not_there(server: Any, make: Any) -> None:
    server.faults = [late] * 3
    with pytest.raises(CannotRun, match="did not answer in time") as caught:
        make(read=0.15).generate([CHAT], 5)
    assert caught.value.exit_code == 4
    with pytest.raises(CannotRun, match="cannot be reached"):
        make("http://127.0.0.1:9/v1").generate([CHAT], 5)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_what_will_never_pass_is_refused_at_once_without_the_key(server: Any, make: Any, status: int) -> None:
    server.faults = [answers(status, {"error": {"message": f"wrong: {KEY} is not known"}})]
    with pytest.raises(BadInput) as caught:
        make().generate([CHAT], 5)
    error: Problem = caught.value
    assert len(server.seen) == 1
    assert f"answered {status}: wrong: *** is not known" in error.message
    assert KEY not in str(error) + repr(error.__context__) + repr(error.__cause__)
    assert error.hint
    assert "\n" not in str(error)


def test_a_key_that_no_header_can_hold_is_not_printed() -> None:
    with pytest.raises(BadInput, match="not one") as caught:
        RemoteGenerator("http://127.0.0.1:9/v1", "tern-2", key="schlüssel")
    assert "schl" not in str(caught.value)


def test_the_key_is_taken_from_the_environment_in_order() -> None:
    assert endpoint.api_key({"OPENAI_API_KEY": "b"}) == "b"
    assert endpoint.api_key({"OPENAI_API_KEY": "b", "TUNEWISE_API_KEY": " a "}) == "a"
    assert endpoint.api_key({"TUNEWISE_API_KEY": " "}) == ""


def test_several_are_asked_at_once_but_no_more_and_answers_keep_their_places(server: Any, make: Any) -> None:
    under_way, most, lock = 0, 0, threading.Lock()

    def slow_echo(body: dict[str, Any]) -> str:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.03)
        with lock:
            under_way -= 1
        return str(body["messages"][-1]["content"])

    server.answer = slow_echo
    heard: dict[int, Completion] = {}
    chats = [[{"role": "user", "content": f"number {n}"}] for n in range(9)]
    found = make(at_once=3).generate(chats, 5, lambda at, made: heard.update(zip(at, made, strict=True)))
    assert [c.text for c in found] == [f"number {n}" for n in range(9)]
    assert [heard[n] for n in range(9)] == found
    assert 2 <= most <= 3


def test_after_a_failure_nothing_more_is_sent_and_what_came_is_kept(server: Any, make: Any) -> None:
    def answer_once(handler: Any) -> None:
        handler.say("Aye.", {"messages": []})

    server.faults = [answer_once, answers(401)]
    heard: list[Completion] = []
    with pytest.raises(BadInput):
        make(at_once=1).generate([CHAT] * 6, 5, lambda at, made: heard.extend(made))
    assert [c.text for c in heard] == ["Aye."]
    assert len(server.seen) == 2


def test_tokens_are_estimated_and_counted_as_such_where_the_server_does_not(server: Any, make: Any) -> None:
    server.faults = [answers(200, {"choices": [{"message": {"content": "12345678"}}]})]
    generator = make()
    (answer,) = generator.generate([CHAT], 5)
    assert (answer.prompt_tokens, answer.completion_tokens, answer.estimated) == (6, 2, True)
    assert not generator.generate([CHAT], 5)[0].estimated


MISTRAL = {
    "detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]
}
OPENAI = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."


@pytest.mark.parametrize("streamed", [False, True])
def test_a_parameter_that_a_server_does_not_take_is_given_up_for_good_and_said(
    server: Any, make: Any, streamed: bool
) -> None:
    server.faults = [answers(400, {"error": {"message": OPENAI}}), answers(422, MISTRAL)]
    notes: list[str] = []
    generator = make(on_note=notes.append)
    for _ in range(2):
        answer = generator.stream(CHAT, 5).finish() if streamed else generator.generate([CHAT], 5)[0]
        assert answer.text == "Aye."
    first, second, third, fourth = server.seen
    assert (first["max_tokens"], first["seed"]) == (5, 7)
    assert (second["max_completion_tokens"], second["seed"], "max_tokens" in second) == (5, 7, False)
    assert third == fourth == {k: v for k, v in second.items() if k != "seed"}
    where = f"tern-2 at 127.0.0.1:{server.server_port}"
    assert notes == [
        f"{where} does not take max_tokens: max_completion_tokens is sent instead",
        f"{where} does not take seed: it is left out",
    ]


@pytest.mark.parametrize(
    "said",
    ["temperature must be below 2", "messages is not supported", "stop is not supported", "unsupported"],
)
def test_a_refusal_of_what_cannot_be_given_up_stays_one(server: Any, make: Any, said: str) -> None:
    server.faults = [answers(400, {"error": {"message": said}})]
    with pytest.raises(BadInput, match=said):
        make().generate([CHAT], 5, sampling=Sampling(stop=("x",)))
    assert len(server.seen) == 1


def test_a_server_that_goes_on_refusing_a_parameter_is_refused_in_the_end(server: Any, make: Any) -> None:
    server.faults = [answers(400, {"error": {"message": "seed, temperature: not allowed"}})] * 9
    with pytest.raises(BadInput, match="not allowed"):
        make().generate([CHAT], 5)
    assert len(server.seen) == 2


def test_every_wait_for_another_try_is_heard(server: Any, make: Any) -> None:
    server.faults = [answers(503, {"error": {"message": "busy"}}), hang_up]
    notes: list[str] = []
    make(on_note=notes.append).generate([CHAT], 5)
    assert [note.partition("; asking again in ")[2].partition(" s ")[2] for note in notes] == [
        "(try 2 of 3)",
        "(try 3 of 3)",
    ]
    assert "answered 503: busy" in notes[0]
    assert "hung up" in notes[1]


@pytest.mark.parametrize("most", [0, -1])
def test_an_answer_of_no_tokens_is_not_asked_for(server: Any, make: Any, most: int) -> None:
    with pytest.raises(BadInput, match="at least 1"):
        make().generate([CHAT], most)
    with pytest.raises(BadInput, match="at least 1"):
        make().stream(CHAT, most)
    assert server.seen == []


def test_an_answer_without_choices_is_refused(server: Any, make: Any) -> None:
    server.faults = [answers(200, {"object": "list"})]
    with pytest.raises(CannotRun, match="without choices"):
        make().generate([CHAT], 5)


def test_requests_are_spaced_to_the_rate() -> None:
    now = [100.0]
    pace = RequestPacer(120, lambda: now[0])
    assert [pace.reserve() for _ in range(3)] == [0.0, 0.5, 1.0]
    now[0] = 110.0
    assert pace.reserve() == 0.0
    assert [RequestPacer(None).reserve() for _ in range(3)] == [0.0] * 3


def test_backoff_doubles_has_jitter_and_honours_the_server() -> None:
    backoff = Backoff(first=1, longest=5)
    assert [backoff.wait(n, None, lambda: 1.0) for n in (1, 2, 3, 4)] == [1, 2, 4, 5]
    assert backoff.wait(3, None, lambda: 0.25) == 1.0
    assert backoff.wait(1, 10, lambda: 0.0) == 10
    assert 10 <= backoff.wait(5, 10) <= 11


def test_retry_after_reads_seconds_dates_and_nonsense() -> None:
    now = datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC)
    assert retry_after("3", now) == 3
    assert retry_after("Wed, 25 Nov 2026 12:00:07 GMT", now) == 7
    assert retry_after("-3", now) == 0
    assert [retry_after(text, now) for text in (None, "", "soon", "inf", "nan")] == [None] * 5


@pytest.mark.parametrize(
    ("url", "private"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("http://localhost/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://192.168.3.4/v1", True),
        ("http://10.0.0.9/v1", True),
        ("http://gpu.internal/v1", True),
        ("https://api.example.com/v1", False),
        ("http://8.8.8.8/v1", False),
        ("http://127.0.0.1.example.com/v1", False),
        ("http://localhost.example.com", False),
        ("http://127.0.0.1@example.com/v1", False),
    ],
)
def test_data_that_must_stay_local_goes_to_private_hosts_only(url: str, private: bool) -> None:
    assert endpoint.is_private(url) is private
    if "@" not in url:
        endpoint.check_may_contact("tern-2", url, must_stay_local=False)
    if private:
        endpoint.check_may_contact("tern-2", url, must_stay_local=True)
    else:
        with pytest.raises(BadInput, match=r"stay local|credentials"):
            endpoint.check_may_contact("tern-2", url, must_stay_local=True)


@pytest.mark.parametrize("url", ["http:///v1", "http://host:99999/v1", "http://user:pw@host/v1"])
def test_an_address_that_cannot_be_used_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(BadInput) as caught:
        endpoint.check_may_contact("tern-2", url, must_stay_local=False)
    assert "pw" not in str(caught.value)


def test_manifests_name_the_host_alone() -> None:
    assert endpoint.endpoint_host("https://me:pw@api.example.com/v1") == "api.example.com"
    assert endpoint.endpoint_host("http://[::1]:8000/v1") == "[::1]:8000"
