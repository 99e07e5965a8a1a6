"""What all tests share: where things are, which tests are deep, and which skips CI allows."""

from __future__ import annotations

import base64
import gc
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.support.command_server import CommandServer
    from tests.support.postgres_server import PostgresServer

ROOT = Path(__file__).resolve().parent.parent
# For tests/families.py and the benchmarks that tests run; at the end, so that the installed packages are what is tested.
sys.path.append(str(ROOT))

# A skip in CI is a hole in the net. These reasons (how they begin) are holes that we know of; with CI set,
# a skip for any other reason fails the session. The list is printed at the end of every CI run.
ALLOWED_SKIPS: tuple[str, ...] = (
    "needs a CUDA GPU",
    "needs the public data",
    "needs Chromium",
    "needs the Gemma terms accepted",
)

# Two processes share the tests (pytest-xdist). Tests that share a run that takes long to make stay together, by the
# beginnings of their ids; elsewhere the tests of a file do. Each page of the documentation is for itself, but for the
# tutorial and those that go on in its folder.
TOGETHER = (
    ("tests/end_to_end/test_eval", "tests/end_to_end/test_line"),
    ("tests/runners/serving/",),
    ("tests/runners/export/",),
    # These kill children of the fixture `warm`.
    (
        "tests/runners/test_interrupts",
        "tests/runners/training/test_kills",
        "tests/runners/training/test_loop",
        "tests/runners/trial/test_kills",
    ),
    ("tests/documentation/test_commands.py::test_commands_work[tutorial: ",),
)
PAGES = "tests/documentation/test_commands.py::test_commands_work["
PROCESSOR_TIMES = ROOT / ".ci" / "processor_times.tsv"
"""Processor time of each test function, written by --processor-times. The longest groups of tests go first."""
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))

# No test reaches a model hub; set before anything imports a library that reads it.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Advice in tests does not depend on a developer's own prices and models.
os.environ["TUNEWISE_FACTS"] = ""
# Nor do estimates depend on runs of before, and no test adds to a developer's own history.
os.environ["TUNEWISE_HISTORY"] = ""
# Nor on how fast this machine was when something else ran on it.
os.environ["TUNEWISE_CALIBRATION"] = ""
# And a developer's own settings stay out of it.
os.environ["TUNEWISE_CONFIG"] = ""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--deep``, which includes the tests marked slow."""
    parser.addoption(
        "--deep", action="store_true", help="also run the tests marked slow (several minutes each)"
    )
    parser.addoption(
        "--gpu",
        action="store_true",
        help="require a GPU: its tests fail, instead of being skipped, without one",
    )
    parser.addoption(
        "--processor-times",
        type=Path,
        metavar="FILE",
        help="write the processor time of each test function into this file",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out slow tests unless ``--deep``, and those of engines unless ``-m`` names them.

    They are deselected, so that they do not look like skips.
    """
    os.environ.pop("PYTEST_ADDOPTS", None)  # pytest started by a test has options of its own
    unwanted = set() if config.getoption("--deep") else {"slow"}
    unwanted |= set() if "engines" in config.getoption("markexpr") else {"engines"}
    left_out = [item for item in items if any(mark.name in unwanted for mark in item.iter_markers())]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        dropped = {id(item) for item in left_out}
        items[:] = [item for item in items if id(item) not in dropped]
    seconds = _group_seconds(items)
    items.sort(key=lambda item: -seconds[_group(item.nodeid)])


def pytest_collection_finish() -> None:
    """Leave what the imports made out of later garbage collections, which would visit it again and again."""
    gc.collect()
    gc.freeze()


def _group(test: str) -> str:
    """What the test of this id must stay together with, as one process's work."""
    shared = (group[0] for group in TOGETHER if test.startswith(group))
    return next(shared, test if test.startswith(PAGES) else test.partition("::")[0])


def _group_seconds(items: list[pytest.Item]) -> dict[str, float]:
    """Return the recorded processor time of each group; 0 for one that was not recorded."""
    recorded: dict[str, float] = {}
    if PROCESSOR_TIMES.is_file():
        for line in PROCESSOR_TIMES.read_text("utf-8").splitlines()[1:]:
            seconds, cases, function = line.split("\t")
            recorded[function] = float(seconds) / int(cases)
    total: dict[str, float] = {}
    for item in items:
        function, group = item.nodeid.partition("[")[0], _group(item.nodeid)
        total[group] = total.get(group, 0.0) + recorded.get(function, 0.0)
    return total


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Divide the tests by those groups. (``--dist loadgroup`` would, but does not with pytest 9.2.)"""
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _group(nodeid)

    return ByGroup(config, log)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test marked gpu on a machine without one, visibly; with ``--gpu`` it fails instead."""
    if item.get_closest_marker("gpu") is None:
        return
    import torch

    if not torch.cuda.is_available():
        if item.config.getoption("--gpu"):
            pytest.fail("--gpu was given, and torch sees no CUDA device here", pytrace=False)
        pytest.skip("needs a CUDA GPU: run it with --gpu on a machine with one")


class SkipWatch:
    """Collects the reasons of skips; with CI set, an unlisted one fails the session."""

    def __init__(self, allowed: tuple[str, ...]) -> None:
        """Take the beginnings of the reasons that are allowed."""
        self.allowed = allowed
        self.refused: list[str] = []

    def note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        """Keep the report's place and reason when it is a skip that is not allowed."""
        if not report.skipped or hasattr(report, "wasxfail"):
            return
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = reason.removeprefix("Skipped: ")
        if not reason.startswith(self.allowed):
            self.refused.append(f"{report.nodeid}: {reason}")

    pytest_runtest_logreport = note
    pytest_collectreport = note

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Turn a passing session with a refused skip into a failing one."""
        if self.refused and exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the list, and every skip that is outside it."""
        terminalreporter.section("skips allowed in CI")
        for reason in self.allowed:
            terminalreporter.line(f"allowed: {reason} ...")
        for line in self.refused:
            terminalreporter.line(f"NOT ALLOWED: {line}", red=True)


def pytest_configure(config: pytest.Config) -> None:
    """Watch the skips when this is CI; draw 100 random cases for each property, 10,000 with ``--deep``."""
    deep = bool(config.getoption("--deep"))
    settings.register_profile("tunewise", max_examples=10_000 if deep else 100, deadline=None)
    settings.load_profile("tunewise")
    if table := config.getoption("--processor-times"):
        from tests.support.processor_times import ProcessorTimes

        config.pluginmanager.register(ProcessorTimes(table), "processor-times")
    if os.environ.get("CI", "").lower() in ("1", "true", "yes"):
        config.pluginmanager.register(SkipWatch(ALLOWED_SKIPS), "skip-watch")


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root: the tree under test is the one these tests stand in."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of public data: TUNEWISE_SHARED, or ``shared`` beside the repository."""
    folder = Path(os.environ.get("TUNEWISE_SHARED") or ROOT.parent / "shared")
    if not (folder / "data").is_dir():
        pytest.skip(f"needs the public data: there is no {folder.name}/data (set TUNEWISE_SHARED)")
    return folder


@pytest.fixture(scope="session")
def example() -> Path:
    """The shipped example's folder, wherever the package was imported from."""
    return Path(str(files("advisor") / "harbor_desk"))


class FakeEndpoint(ThreadingHTTPServer):
    """An OpenAI-compatible server on this machine: `answer` makes the words, `faults` go first, one a request."""

    daemon_threads = True

    def __init__(self) -> None:
        """Listen on a free port of the loopback interface."""
        super().__init__(("127.0.0.1", 0), _FakeHandler)
        self.answer: Callable[[dict[str, Any]], str | dict[str, Any]] = lambda body: "Aye."
        """Returns the words of an answer, or a whole message, such as one with calls."""
        self.faults: list[Callable[[BaseHTTPRequestHandler], None]] = []
        self.seen: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.headers: list[dict[str, str]] = []
        self.finished = True
        self.models = ["tern-2"]
        self.roots: dict[str, str] = {}
        self.checks = 0
        self.awake = threading.Event()
        self.awake.set()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """The address that a model's name ends with."""
        return f"http://127.0.0.1:{self.server_port}/v1"


class _FakeHandler(BaseHTTPRequestHandler):
    server: FakeEndpoint

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """List the models; nothing at all while the server is not awake."""
        self.server.checks += 1
        self.server.headers.append(dict(self.headers))
        self.server.awake.wait(600)
        rows = [
            {"id": name, "object": "model", "root": self.server.roots.get(name)}
            for name in self.server.models
        ]
        self.reply(200, {"data": rows})

    def do_POST(self) -> None:
        """Answer a chat completion, in one piece or as a stream of words."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.seen.append(body)
            self.server.keys.append(self.headers["Authorization"])
            self.server.headers.append(dict(self.headers))
        self.server.awake.wait(600)
        with self.server.lock:
            fault = self.server.faults.pop(0) if self.server.faults else None
        if fault:
            fault(self)
        elif not self.path.endswith("/v1/chat/completions"):
            self.reply(404, {"error": {"message": f"no such path {self.path}"}})
        else:
            self.say(self.server.answer(body), body)

    def reply(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        """Send a status and a body: JSON, or text as it is."""
        raw = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(raw)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)

    def say(self, answer: str | dict[str, Any], body: dict[str, Any]) -> None:
        """Send an answer as the request wants it, with its tokens counted as words."""
        message = answer if isinstance(answer, dict) else {"role": "assistant", "content": answer}
        text = str(message["content"] or "")
        asked = sum(len(message["content"].split()) for message in body["messages"])
        asked += len(json.dumps(body["tools"]).split()) if "tools" in body else 0
        usage = {"prompt_tokens": asked, "completion_tokens": len(text.split())}
        if not body.get("stream"):
            finish = "tool_calls" if message.get("tool_calls") else "stop"
            choice = {"index": 0, "message": message, "finish_reason": finish}
            self.reply(200, {"choices": [choice], "usage": usage})
            return
        events: list[dict[str, Any]] = [
            {"choices": [{"delta": {"content": word}}]} for word in re.findall(r"\s*\S+|\s+", text)
        ]
        events.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
        events.append({"choices": [], "usage": usage})
        lines = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
        self.reply(200, lines + ("data: [DONE]\n\n" if self.server.finished else ""))


@pytest.fixture
def endpoints() -> Iterator[Callable[[], FakeEndpoint]]:
    """Start fake endpoints, which end with the test."""
    started: list[FakeEndpoint] = []

    def start() -> FakeEndpoint:
        fake = FakeEndpoint()
        threading.Thread(target=fake.serve_forever, args=(0.02,), daemon=True).start()
        started.append(fake)
        return fake

    yield start
    for fake in started:
        fake.awake.set()
        fake.shutdown()
        fake.server_close()


@pytest.fixture
def server(endpoints: Callable[[], FakeEndpoint]) -> FakeEndpoint:
    """A running fake endpoint."""
    return endpoints()


@pytest.fixture(scope="session")
def command_server(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandServer]:
    """The process that forks a child for each command line of `tunewise`."""
    from tests.support.command_server import CommandServer
    from tests.support.processor_times import LONG_LIVED

    environment = {**os.environ, "PYTHONPATH": str(root)}
    with CommandServer(tmp_path_factory.mktemp("server"), environment) as running:
        LONG_LIVED.append(running.process.pid)
        yield running
        LONG_LIVED.remove(running.process.pid)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server with pgvector; its password is in the environment as long as it runs."""
    from tests.support.postgres_server import PASSWORD, PostgresServer

    before = os.environ.get("PGPASSWORD")
    with PostgresServer() as running:
        os.environ["PGPASSWORD"] = PASSWORD
        yield running
    os.environ.pop("PGPASSWORD")
    if before is not None:
        os.environ["PGPASSWORD"] = before


@pytest.fixture(scope="session")
def little_bert() -> Callable[[Path, Any, int], Path]:
    """Make an embedder's folder of a BERT of a few thousand parameters, always the same for the same tokenizer."""

    def make(folder: Path, tokenizer: Any, positions: int = 64) -> Path:
        import torch
        from transformers import BertConfig, BertModel

        tokenizer.save(str(folder / "tokenizer.json"))
        config = BertConfig(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=positions,
        )
        torch.manual_seed(0)  # one draw in forty ranks another passage first
        BertModel(config).save_pretrained(folder)
        (folder / "modules.json").write_text("[]")
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
        return folder

    return make


class Browser:
    """Headless Chromium, spoken to through its debugging pipe: no library, no port."""

    def __init__(self, program: str, home: Path) -> None:
        hears, said = os.pipe()
        told, says = os.pipe()
        flags = (
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--remote-debugging-pipe",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            f"--user-data-dir={home}",
            "about:blank",
        )
        line = f'exec "$0" "$@" 3<&{hears} 4>&{says}'
        self.process = subprocess.Popen(
            ["bash", "-c", line, program, *flags],
            pass_fds=(hears, says),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(hears)
        os.close(says)
        self.out, self.into = os.fdopen(said, "wb"), os.fdopen(told, "rb")
        self.events: list[dict[str, Any]] = []
        self.count, self.session, self.heard = 0, "", bytearray()
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self.count += 1
        body = {"id": self.count, "method": method, "params": params}
        body |= {"sessionId": self.session} if self.session else {}
        self.out.write(json.dumps(body).encode() + b"\0")
        self.out.flush()
        while True:
            message = self.next()
            if message.get("id") == self.count:
                assert "error" not in message, message
                return message["result"]

    def next(self) -> dict[str, Any]:
        while b"\0" not in self.heard:
            got = self.into.read1(1 << 20)
            assert got, "Chromium ended"
            self.heard += got
        raw, _, rest = bytes(self.heard).partition(b"\0")
        self.heard = bytearray(rest)
        message = json.loads(raw)
        self.events.append(message)
        return message

    def open(self, url: str, width: int = 1280, scheme: str = "light") -> None:
        look = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media="", features=look)
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
        )
        self.events.clear()
        self.call("Page.navigate", url=url)
        while not any(e.get("method") == "Page.loadEventFired" for e in self.events):
            self.next()

    def js(self, code: str) -> Any:
        found = self.call("Runtime.evaluate", expression=code, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def shoot(self, path: Path) -> None:
        height = self.js("document.documentElement.scrollHeight")
        clip = {"x": 0, "y": 0, "width": self.js("innerWidth"), "height": height, "scale": 1}
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        self.session = ""
        self.call("Browser.close")
        self.process.wait(600)
        self.out.close()
        self.into.close()


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Browser]:
    """A browser; where there is none the test is skipped, and fails among the tests of engines, for which CI installs it."""
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next((found for name in names if (found := shutil.which(name))), None)
    if program is None or os.name == "nt":
        missing = "needs Chromium, as in Debian's package of that name"
        if "engines" in pytestconfig.getoption("markexpr"):
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)
    started = Browser(program, tmp_path_factory.mktemp("chromium"))
    yield started
    started.close()
