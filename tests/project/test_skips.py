"""Rules of the test suite itself: in CI an unlisted skip fails the session; slow tests need --deep, engines -m."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SUITE = """
import pytest

def test_runs(): pass

def test_allowed(): pytest.skip("needs a CUDA GPU: none was found")

@pytest.mark.skipif({unlisted}, reason="felt like it")
def test_unlisted(): pass

@pytest.mark.slow
def test_slow(): pass

@pytest.mark.engines
def test_engines(): pass
"""


def session(
    root: Path, folder: Path, *options: str, unlisted: bool, ci: str
) -> subprocess.CompletedProcess[str]:
    """Run a small test suite under a copy of this project's conftest."""
    shutil.copy(root / "tests" / "conftest.py", folder)
    (folder / "test_small.py").write_text(SUITE.format(unlisted=unlisted), "utf-8")
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    slow: slow\n    engines: engines\n", "utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options]
    env = {**os.environ, "CI": ci}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("unlisted", "ci", "code"),
    [(True, "true", 1), (False, "true", 0), (True, "", 0)],
    ids=["unlisted-skip-in-ci", "listed-skip-in-ci", "unlisted-skip-locally"],
)
def test_unlisted_skips_fail_in_ci(root: Path, tmp_path: Path, unlisted: bool, ci: str, code: int) -> None:
    """Only in CI, and only for reasons that are not in the printed list."""
    done = session(root, tmp_path, unlisted=unlisted, ci=ci)
    assert done.returncode == code, done.stdout
    assert ("allowed: needs a CUDA GPU" in done.stdout) == bool(ci)
    assert ("NOT ALLOWED: test_small.py::test_unlisted: felt like it" in done.stdout) == (code == 1)
    assert "2 deselected" in done.stdout


def test_deep_option_runs_slow_tests(root: Path, tmp_path: Path) -> None:
    """Without the option they are deselected; with it they run. Those of engines run only by their marker."""
    done = session(root, tmp_path, "--deep", unlisted=False, ci="")
    assert "3 passed, 1 skipped, 1 deselected" in done.stdout
    done = session(root, tmp_path, "-m", "engines", unlisted=False, ci="true")
    assert (done.returncode, "1 passed, 4 deselected" in done.stdout) == (0, True), done.stdout
