"""`ask` and `chat` with a server of this machine: equal answers, and a server that is not asked when it must not be."""

from __future__ import annotations

import io
import json
import os
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from advisor import cli
from rag.version import __version__
from runners.models.resolve import resolve_model
from runners.runs.run import RunSession
from runners.serving.server_record import ServerRecord, find_servers, recorded_server, run_fingerprint
from tests.runners.serving.test_process import ENDLESS, Process
from tests.support.limits import HANG_S

QUESTION = "Is the 2th berth free tonight, please?"
Ask = Callable[..., tuple[str, str]]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder of this module's own: no server of the user is found, and none of these by the user.

    It has the user's models, as the gate of the run reads passages with all-MiniLM.
    """
    folder = tmp_path_factory.mktemp("cache")
    (folder / "models").symlink_to(resolve_model("all-minilm-l6-v2").folder.parent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNEWISE_CACHE", str(folder))
        yield folder


@pytest.fixture
def ask(run: Path, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Run a verb on the run in this process; it returns what was printed on stdout and stderr."""

    def call(*arguments: str, verb: str = "ask") -> tuple[str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main([verb, str(run), *arguments])
        printed = capsys.readouterr()
        assert not stop.value.code, printed.err
        return printed.out, printed.err

    return call


@pytest.fixture(scope="module")
def process(run: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A server that needs a token."""
    started = Process(run, "--port", "0", "--token", tmp_path_factory.mktemp("key") / "token")
    yield started
    started.child.kill()
    started.child.communicate()


def record_of(run: Path) -> ServerRecord:
    (record,), notes = find_servers(run)
    assert not notes
    return record


@pytest.fixture
def alone(cache: Path) -> Iterator[None]:
    """Hide the records of other servers for one test."""
    kept = list((cache / "servers").glob("*.json"))
    for file in kept:
        file.rename(file.with_suffix(".kept"))
    yield
    for file in kept:
        file.with_suffix(".kept").rename(file)


@pytest.mark.parametrize("arm", ["hybrid", "rag", "few-shot", "lora"])
def test_answers_equal_those_of_the_local_path(process: Process, run: Path, ask: Ask, arm: str) -> None:
    address = f"answered by the server at {record_of(run).address}"
    for question in (QUESTION, "Who repairs the zeppelin?"):
        text, note = ask(question, "--arm", arm)
        assert address in note
        local, note = ask(question, "--arm", arm, "--no-server")
        assert "server" not in note
        assert text == local
        printed, _ = ask(question, "--arm", arm, "--json")
        local, _ = ask(question, "--arm", arm, "--json", "--no-server")
        mine, other = json.loads(printed), json.loads(local)
        assert list(mine) == list(other)
        assert {**mine, "seconds": 0} == {**other, "seconds": 0}


@pytest.mark.parametrize("arm", ["rag", "few-shot"])
def test_a_conversation_equals_the_local_one(
    process: Process, ask: Ask, monkeypatch: pytest.MonkeyPatch, arm: str
) -> None:
    lines = f"{QUESTION}\nand tomorrow?\n/new\nand tomorrow?\n"
    rows = []
    for flags in ((), ("--no-server",)):
        monkeypatch.setattr("sys.stdin", io.StringIO(lines))
        out, err = ask("--arm", arm, "--json", *flags, verb="chat")
        assert ("answered by the server" in err) == (not flags)
        rows.append([{**json.loads(line), "seconds": 0} for line in out.splitlines()])
    assert rows[0] == rows[1]
    assert len(rows[0]) == 3
    assert rows[0][1]["asked_as"] != "and tomorrow?" == rows[0][2]["asked_as"]


def test_the_record_is_its_owners_and_holds_no_token(process: Process, run: Path, cache: Path) -> None:
    (file,) = (cache / "servers").glob("*.json")
    record = record_of(run)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert Path(record.token_file).read_text("utf-8").strip() not in file.read_text("utf-8")
    assert (record.pid, record.version, record.backend) == (process.child.pid, __version__, ())


def test_a_changed_run_and_another_model_are_answered_here(process: Process, run: Path, ask: Ask) -> None:
    weights = next((run / "adapters").rglob("*.safetensors"))
    times = weights.stat()
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    try:
        out, err = ask(QUESTION, "--arm", "prompting")
        assert "is not asked: the run has changed since the server was started" in err
        assert out
    finally:
        os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    _, err = ask(QUESTION, "--arm", "prompting", "--backend", "local")
    assert "answered" in err, "local is where this server generates"
    model = RunSession.open(run).plan.model.name
    _, err = ask(QUESTION, "--arm", "prompting", "--model", model)
    assert "is not asked: --model names the model" in err


def test_records_that_name_no_server_are_removed(run: Path, cache: Path, process: Process) -> None:
    record = record_of(run)
    here = psutil.Process()
    with recorded_server(replace(record, pid=os.getpid(), started=here.create_time())):
        found, notes = find_servers(run)
        assert [server.pid for server in found] == [process.child.pid]
        assert "does not listen on port" in notes[0], "a process of the user that listens elsewhere"
    with recorded_server(replace(record, pid=os.getpid(), started=here.create_time() - 60)):
        _, notes = find_servers(run)
        assert "has ended; its record is removed" in notes[0], "the number belongs to a later process"
        assert find_servers(run)[1] == []
    name = next((cache / "servers").glob("*.json"))
    for body in (
        "{",
        json.dumps({**asdict(record), "port": "80"}),
        json.dumps({**asdict(record), "host": "192.0.2.1"}),
    ):
        damaged = name.with_name(name.name.replace(str(record.pid), "1"))
        damaged.write_text(body, "utf-8")
        damaged.chmod(0o600)
        _, notes = find_servers(run)
        assert "was damaged and is removed" in notes[0]
        assert not damaged.exists()
    damaged.write_text(json.dumps(asdict(record)), "utf-8")
    damaged.chmod(0o644)
    assert "may read it" in find_servers(run)[1][0], "others could have pointed it anywhere"


@pytest.mark.usefixtures("alone")
def test_a_stranger_on_the_port_is_not_asked_the_question(run: Path, ask: Ask) -> None:
    asked: list[str] = []

    class Stranger(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = json.dumps({"status": "ok", "run": "another", "version": __version__}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *arguments: Any) -> None:
            """Print nothing."""

    with HTTPServer(("127.0.0.1", 0), Stranger) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        record = ServerRecord(
            host="127.0.0.1",
            port=server.server_port,
            pid=os.getpid(),
            started=psutil.Process().create_time(),
            run=str(run.resolve()),
            fingerprint=run_fingerprint(run, RunSession.open(run).plan),
        )
        with recorded_server(record):
            _, err = ask(QUESTION, "--arm", "prompting")
        with recorded_server(replace(record, version="0.0.1")):
            _, older = ask(QUESTION, "--arm", "prompting")
        server.shutdown()
    assert asked == ["/health"]
    assert f"the server at {record.address} is not asked: it does not serve this run" in err
    assert "it is tunewise 0.0.1" in older


@pytest.mark.usefixtures("alone")
def test_a_busy_server_is_left_alone_and_a_stopped_one_forgotten(run: Path, ask: Ask) -> None:
    started = Process(run, "--port", "0", "--per-minute", "1")
    try:
        out, err = ask(QUESTION, "--arm", "rag")
        assert "did not answer: more than 1 requests a minute" in err
        assert "answering in this process" in err
        assert out == ask(QUESTION, "--arm", "rag", "--no-server")[0]
        assert started.end(signal.SIGTERM)[0] == 0
        assert find_servers(run) == ([], [])
    finally:
        started.child.kill()
        started.child.communicate()


@pytest.mark.slow  # test_a_busy_server_is_left_alone_and_a_stopped_one_forgotten
@pytest.mark.usefixtures("alone")
def test_a_server_killed_in_the_middle_leaves_the_answer_to_this_process(run: Path, ask: Ask) -> None:
    started = Process(run, "--port", "0", before=ENDLESS)
    try:

        def kill_in_prefill() -> None:
            assert started.child.stdout is not None
            while started.child.stdout.readline() not in ("prefill\n", ""):
                pass
            started.child.kill()

        threading.Thread(target=kill_in_prefill).start()
        out, err = ask(QUESTION, "--arm", "prompting")
        assert "did not answer: the " in err
        started.child.wait(HANG_S)
        again, err = ask(QUESTION, "--arm", "prompting")
        assert f"(process {started.child.pid}) has ended; its record is removed" in err
        assert out == again
    finally:
        started.child.kill()
        started.child.communicate()
