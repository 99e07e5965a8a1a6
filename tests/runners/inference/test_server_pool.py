"""A model at several servers: which is asked, what happens when one fails, hangs or loses the model, and how it returns."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from rag.errors import BadInput, CannotRun
from runners.inference.http_client import Backoff, BrokenStream, RequestCaller, RequestLimits, ServerFailure
from runners.inference.remote import RemoteGenerator
from runners.inference.servers.health import HealthTimes, Server
from runners.inference.servers.pool import ServerPool
from tests.support.limits import HANG_S

CHAT = [{"role": "user", "content": "Is it open?"}]
TIMES = HealthTimes(
    check_every=0.1, check_again=0.02, check_timeout=HANG_S, silence=HANG_S, rest=0.1, longest_rest=0.3
)
SHORT = replace(TIMES, check_timeout=1.0, silence=1.0)
"""For what these tests are about: servers that hang or say nothing."""
LIMITS = RequestLimits(backoff=Backoff(tries=3, first=0.01, longest=0.02))

Pair = tuple[Any, Any]
Ask = Callable[..., tuple[RemoteGenerator, tuple[Server, ...]]]


@pytest.fixture
def pair(endpoints: Callable[[], Any]) -> Pair:
    """Two endpoints that have the model tern-2 and say which of them answers."""
    first, second = endpoints(), endpoints()
    first.answer, second.answer = (lambda body: "the first one answers"), (lambda body: "the second one")
    return first, second


@pytest.fixture
def notes() -> list[str]:
    """What the servers and the pool say."""
    return []


@pytest.fixture
def ask(notes: list[str]) -> Iterator[Ask]:
    """Make a generator that asks some endpoints, each checked once already."""
    opened: list[Server] = []

    def make(*fakes: Any, times: HealthTimes = TIMES, watch: bool = True) -> Any:
        servers = tuple(Server(fake.url, LIMITS, times, notes.append) for fake in fakes)
        opened.extend(servers)
        for server in servers:
            server.check()
            if watch:
                server.watch()
        pool = ServerPool("tern-2", servers, LIMITS, notes.append)
        return RemoteGenerator(fakes[0].url, "tern-2", LIMITS, pool=pool), servers

    yield make
    for server in opened:
        server.close()


def hang_up(handler: Any) -> None:
    """Close the connection without an answer."""
    handler.close_connection = True
    handler.connection.close()


def stop_after(*deltas: dict[str, str]) -> Callable[[Any], None]:
    """Return a fault that streams some messages and then closes the connection."""

    def fault(handler: Any) -> None:
        handler.send_response(200)
        handler.end_headers()
        for delta in deltas:
            handler.wfile.write(
                b'data: {"choices": [{"delta": %s}]}\n\n' % str(delta).replace("'", '"').encode()
            )
        handler.wfile.flush()
        hang_up(handler)

    return fault


def until(condition: Callable[[], bool]) -> bool:
    """Wait for something; return whether it came."""
    end = time.monotonic() + HANG_S
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def test_requests_are_spread_in_turn_and_by_load(pair: Pair, ask: Ask) -> None:
    generator, servers = ask(*pair, watch=False)
    for _ in range(4):
        generator.generate([CHAT], 5)
    assert [len(fake.seen) for fake in pair] == [2, 2]
    pair[0].awake.clear()  # its request stays in flight
    waiting = ThreadPoolExecutor(1).submit(generator.generate, [CHAT], 5)
    assert until(lambda: servers[0].in_flight == 1)
    texts = [generator.generate([CHAT], 5)[0].text for _ in range(3)]
    pair[0].awake.set()
    assert texts == ["the second one"] * 3
    assert waiting.result(HANG_S)[0].text == "the first one answers"
    assert [server.in_flight for server in servers] == [0, 0]


@pytest.mark.parametrize("streamed", [False, True])
def test_lost_request_goes_to_the_other_server(
    pair: Pair, ask: Ask, notes: list[str], streamed: bool
) -> None:
    generator, servers = ask(*pair, watch=False)
    pair[0].faults = [hang_up]
    answer = generator.stream(CHAT, 5).finish() if streamed else generator.generate([CHAT], 5)[0]
    assert (answer.text, generator.retries) == ("the second one", 1)
    assert (servers[0].up, servers[0].failures, servers[1].up) == (False, 1, True)
    assert generator.generate([CHAT], 5)[0].text == "the second one", "the first one is left alone"
    servers[0].watch()
    assert until(lambda: servers[0].up), "a check that passes brings it back"
    assert {generator.generate([CHAT], 5)[0].text for _ in range(2)} == {
        "the first one answers",
        "the second one",
    }
    assert any("is down" in note for note in notes)
    assert any("is back after" in note for note in notes)


def test_no_request_is_lost_among_many(pair: Pair, ask: Ask) -> None:
    generator, _ = ask(*pair)
    pair[1].faults = [hang_up] * 4
    chats = [[{"role": "user", "content": f"Is pier {n} open?"}] for n in range(24)]
    assert len(generator.generate(chats, 5)) == 24


def test_stream_that_has_begun_is_not_repeated(pair: Pair, ask: Ask) -> None:
    generator, servers = ask(*pair, watch=False)
    pair[0].faults = [stop_after({"role": "assistant"}, {"content": "It is"})]
    stream = generator.stream(CHAT, 5)
    assert next(stream) == "It is"
    with pytest.raises(BrokenStream, match="a stream that has begun is not repeated"):
        list(stream)
    assert (len(pair[0].seen), len(pair[1].seen)) == (1, 0)
    assert not servers[0].up


def test_stream_without_words_yet_is_repeated(pair: Pair, ask: Ask) -> None:
    generator, _ = ask(*pair)
    pair[0].faults = [stop_after({"role": "assistant"})]
    assert generator.stream(CHAT, 5).finish().text == "the second one"


@pytest.mark.parametrize("streamed", [False, True])
def test_hanging_server_is_given_up(pair: Pair, ask: Ask, streamed: bool) -> None:
    generator, servers = ask(*pair, times=SHORT)
    pair[0].awake.clear()
    started = time.monotonic()
    answer = generator.stream(CHAT, 5).finish() if streamed else generator.generate([CHAT], 5)[0]
    assert answer.text == "the second one"
    assert time.monotonic() - started > 1, "after two checks that time out"
    assert servers[0].to_json()["up"] is False
    pair[0].awake.set()
    assert until(lambda: servers[0].up)


def test_silent_server_is_given_up_although_it_passes_checks(pair: Pair, ask: Ask) -> None:
    generator, servers = ask(*pair, times=SHORT)
    answered = threading.Event()
    pair[0].faults = [lambda handler: answered.wait(HANG_S)]
    started = time.monotonic()
    assert generator.stream(CHAT, 5).finish().text == "the second one"
    assert time.monotonic() - started > 0.9
    assert servers[0].failures == 1
    answered.set()


def test_request_in_a_queue_is_waited_for_while_others_get_words(pair: Pair, ask: Ask) -> None:
    times = replace(TIMES, silence=3.0)
    generator, servers = ask(*pair, times=times, watch=False)
    servers[1].failed(ServerFailure("left out of this test"))

    def speak_slowly(handler: Any) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(30):
            handler.wfile.write(b'data: {"choices": [{"delta": {"content": "word "}}]}\n\n')
            handler.wfile.flush()
            time.sleep(0.2)
        handler.wfile.write(b"data: [DONE]\n\n")

    def wait(handler: Any) -> None:
        time.sleep(2 * times.silence)
        handler.say("after its turn", pair[0].seen[-1])

    pair[0].faults = [speak_slowly, wait]
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(lambda: generator.stream(CHAT, 5).finish())
        assert until(lambda: len(pair[0].seen) == 1)
        queued = pool.submit(lambda: generator.stream(CHAT, 5).finish())
    assert slow.result().text == ("word " * 30).strip()
    assert queued.result().text == "after its turn"
    assert servers[0].failures == 0


def test_slow_server_is_waited_for(pair: Pair, ask: Ask) -> None:
    generator, servers = ask(pair[0], watch=False)

    def late(handler: Any) -> None:
        time.sleep(0.6)
        handler.reply(503, "later")

    pair[0].faults = [late]
    assert generator.stream(CHAT, 5).finish().text == "the first one answers"
    assert servers[0].failures == 1


def test_server_without_the_model_is_not_asked(pair: Pair, ask: Ask) -> None:
    generator, servers = ask(*pair)
    pair[0].models = ["another"]
    assert until(lambda: not servers[0].has("tern-2")), "it is noticed by the next check"
    assert {generator.generate([CHAT], 5)[0].text for _ in range(3)} == {"the second one"}
    assert servers[0].why_not("tern-2").endswith("has no model 'tern-2'; it has: another")
    pair[1].models = []
    assert until(lambda: not servers[1].has("tern-2"))
    with pytest.raises(CannotRun, match=r"it has: another; .* it has: none"):
        generator.generate([CHAT], 5)


def test_all_down_names_each_and_a_returned_server_answers(endpoints: Any, ask: Ask) -> None:
    fakes = endpoints(), endpoints()
    generator, servers = ask(*fakes, watch=False)
    for fake in fakes:
        fake.faults = [hang_up] * 3
        fake.models = []
    with pytest.raises(CannotRun) as caught:
        generator.generate([CHAT], 5)
    assert all(server.url in str(caught.value) for server in servers)
    fakes[0].models, fakes[0].faults = ["tern-2"], []
    assert generator.generate([CHAT], 5)[0].text == "Aye.", "checked when it is needed, not only by the clock"


def test_refused_request_is_not_sent_to_the_other(pair: Pair, ask: Ask) -> None:
    generator, servers = ask(*pair)
    pair[0].faults = [lambda handler: handler.reply(400, {"error": {"message": "too long"}})]
    with pytest.raises(BadInput, match="too long"):
        generator.generate([CHAT], 5)
    assert (len(pair[1].seen), servers[0].up, servers[0].in_flight) == (0, True, 0)


def test_error_of_one_request_leaves_the_server_up(pair: Pair, ask: Ask) -> None:
    generator, servers = ask(*pair)
    pair[0].faults = [lambda handler: handler.reply(500, "oops")]
    assert generator.generate([CHAT], 5)[0].text == "the second one"
    assert servers[0].up


def test_caller_who_leaves_ends_the_wait(pair: Pair, ask: Ask) -> None:
    generator, servers = ask(pair[0])
    gone, left = threading.Event(), threading.Event()
    pair[0].faults = [lambda handler: left.wait(HANG_S)]
    stream = generator.stream(CHAT, 5, caller=RequestCaller(is_waiting=lambda: not gone.is_set()))
    threading.Timer(0.2, gone.set).start()
    with pytest.raises(CannotRun, match="was cancelled"):
        list(stream)
    assert servers[0].in_flight == 0
    left.set()


def test_key_goes_to_its_own_server_only(pair: Pair, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURS", "sk-not-a-real-key")
    monkeypatch.setenv("TUNEWISE_API_KEYS", f"127.0.0.1:{pair[0].server_port}=OURS")
    generator, _ = ask(*pair)
    for _ in range(2):
        generator.generate([CHAT], 5)
    assert (pair[0].keys, pair[1].keys) == (["Bearer sk-not-a-real-key"], [None])
