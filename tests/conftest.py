"""What all tests share: where things are, which tests are deep, and which skips CI allows."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent

# A skip in CI is a hole in the net. These reasons (how they begin) are holes that we know of; with CI set,
# a skip for any other reason fails the session. The list is printed at the end of every CI run.
ALLOWED_SKIPS: tuple[str, ...] = (
    "needs a CUDA GPU",
    "needs the public data",
)

# No test reaches a model hub; set before anything imports a library that reads it.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Advice in tests does not depend on a developer's own prices and models.
os.environ["TUNEWISE_FACTS"] = ""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--deep``, which includes the tests marked slow."""
    parser.addoption(
        "--deep", action="store_true", help="also run the tests marked slow (several minutes each)"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave slow tests out (deselected, so that they do not look like skips) unless ``--deep``."""
    if config.getoption("--deep"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]


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
    """Watch the skips when this is CI; draw 500 random cases for each property, 10,000 with ``--deep``."""
    deep = bool(config.getoption("--deep"))
    settings.register_profile("tunewise", max_examples=10_000 if deep else 500, deadline=None)
    settings.load_profile("tunewise")
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
