"""The verb as it is started: what it refuses, where it listens, how it stops."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import advisor
from advisor import cli

PACKAGES = Path(advisor.__file__).resolve().parent.parent


class Process:
    """`tunewise serve` in a process of its own, listening; `before` is run in it first."""

    child: subprocess.Popen[str]

    def __init__(self, *arguments: object, before: str = "") -> None:
        code = f"{before}\nfrom advisor import cli\ncli.main()"
        line = [sys.executable, "-P", "-c", code, "serve", *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(PACKAGES), "OMP_NUM_THREADS": "1"}
        self.child = subprocess.Popen(
            line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.said: list[str] = []
        assert self.child.stderr is not None
        for text in self.child.stderr:
            self.said.append(text)
            if found := re.search(r"on (http://\S+)", text):
                self.url = found[1]
                break
        else:
            pytest.fail("".join(self.said))

    def end(self, number: int) -> tuple[int, str]:
        """Send a signal; return the exit code and all that was said."""
        self.child.send_signal(number)
        out, more = self.child.communicate(timeout=120)
        return self.child.returncode, "".join(self.said) + more + out


@pytest.fixture(scope="module")
def process(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A server with a token, made on the way."""
    token = tmp_path_factory.mktemp("key") / "token"
    started = Process(run, "--port", "0", "--token", token)
    started.token = token.read_text().strip()  # type: ignore[attr-defined]
    yield started
    started.child.kill()
    started.child.communicate()


def test_an_answer_under_way_is_finished_when_it_is_told_to_stop(process: Any) -> None:
    assert process.url.startswith("http://127.0.0.1:")
    headers = {"Authorization": f"Bearer {process.token}"}
    assert httpx.get(f"{process.url}/health").status_code == 401
    body = {"model": "model", "prompt": "The", "max_tokens": 400, "stream": True, "temperature": 2, "seed": 5}
    found: dict[str, Any] = {}
    with httpx.stream(
        "POST", f"{process.url}/v1/completions", json=body, headers=headers, timeout=120
    ) as answer:
        lines = answer.iter_lines()
        next(lines)
        stopping = threading.Thread(target=lambda: found.update(end=process.end(signal.SIGTERM)))
        stopping.start()
        rest = [line for line in lines if line]
    stopping.join(120)
    assert rest[-1] == "data: [DONE]"
    assert '"finish_reason": "length"' in rest[-2] or '"finish_reason": "stop"' in rest[-2]
    code, said = found["end"]
    assert code == 0
    assert "stopped" in said
    assert "Traceback" not in said
    assert process.token not in said
    assert "fresh token" in said
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{process.url}/health")


def test_it_outlives_its_log(run: Path) -> None:
    process = Process(run, "--port", "0")
    try:
        process.child.stderr.close()
        with httpx.Client(base_url=process.url, timeout=60) as http:
            assert http.post("/v1/embeddings", json={"input": "hi", "dimensions": 5}).status_code == 400
            turns = [{"role": "user", "content": "Hello?"}]
            assert http.post("/v1/chat/completions", json={"messages": turns}).status_code == 200
            assert http.get("/health").status_code == 200
        process.child.send_signal(signal.SIGTERM)
        assert process.child.wait(60) == 0
    finally:
        process.child.kill()
        process.child.wait()
        process.child.stdout.close()


ENDLESS = """
from runners.inference.decoding import Decoder

def endless(*given):
    import torch
    much = torch.ones(1000, 1000)
    while True:
        much @ much

Decoder.decode_one = endless
"""
"""A prompt so long that its reading does not end."""


def test_a_prompt_that_is_being_read_does_not_spoil_the_end(run: Path) -> None:
    process = Process(run, "--port", "0", before=ENDLESS)
    try:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{process.url}/v1/completions", json={"model": "model", "prompt": "The"}, timeout=2)
        code, said = process.end(signal.SIGTERM)
        assert (code, "stopped" in said) == (0, True)
        assert "terminate called" not in said
    finally:
        process.child.kill()
        process.child.wait()


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Run the verb in this process; return its exit code and what it said."""
    with pytest.raises(SystemExit) as stop:
        cli.main(["serve", *map(str, arguments)])
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return int(stop.value.code or 0), said


def test_what_cannot_be_served_is_said_before_anything_is_loaded(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], served: Any
) -> None:
    assert refused(capsys, run, "--host", "0.0.0.0")[0] == 2
    code, said = refused(capsys, tmp_path / "none")
    assert (code, "does not exist" in said) == (3, True)
    loose = tmp_path / "token"
    loose.write_text("a-token-that-is-long-enough")
    loose.chmod(0o644)
    code, said = refused(capsys, run, "--token", loose)
    assert (code, "chmod 600" in said) == (3, True)
    assert "a-token-that" not in said
    code, said = refused(capsys, run, "--port", served.url.rpartition(":")[2])
    assert (code, "--port 0" in said) == (4, True)


def test_without_the_extra_it_says_which(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from advisor import terminal

    found = terminal.find_spec
    monkeypatch.setattr(terminal, "find_spec", lambda name: None if name == "fastapi" else found(name))
    code, said = refused(capsys, run)
    assert code == 4
    assert "fastapi" in said
    assert 'pip install "tunewise[serve]"' in said


def test_help_brings_nothing_heavy() -> None:
    code = (
        "import sys\nfrom advisor import cli\n"
        "try:\n    cli.main(['serve', '--help'])\nexcept SystemExit:\n    pass\n"
        "print([m for m in ('fastapi', 'uvicorn', 'torch', 'starlette', 'prometheus_client') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGES, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert "--token" in done.stdout
