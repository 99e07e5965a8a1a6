"""The net under the tests: in CI an unlisted skip fails the session; slow tests wait for --deep."""

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

@pytest.mark.skipif({holes}, reason="felt like it")
def test_hole(): pass

@pytest.mark.slow
def test_slow(): pass
"""


def session(
    root: Path, folder: Path, *options: str, holes: bool, ci: str
) -> subprocess.CompletedProcess[str]:
    """Run a small suite of its own under a copy of our conftest."""
    shutil.copy(root / "tests" / "conftest.py", folder)
    (folder / "test_small.py").write_text(SUITE.format(holes=holes), "utf-8")
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = slow: slow\n", "utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options]
    env = {**os.environ, "CI": ci}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("holes", "ci", "code"),
    [(True, "true", 1), (False, "true", 0), (True, "", 0)],
    ids=["hole", "whole", "desk"],
)
def test_unlisted_skips_fail_in_ci(root: Path, tmp_path: Path, holes: bool, ci: str, code: int) -> None:
    """Only in CI, only for reasons outside the printed list."""
    done = session(root, tmp_path, holes=holes, ci=ci)
    assert done.returncode == code, done.stdout
    assert ("allowed: needs a CUDA GPU" in done.stdout) == bool(ci)
    assert ("NOT ALLOWED: test_small.py::test_hole: felt like it" in done.stdout) == (code == 1)
    assert "1 deselected" in done.stdout


def test_deep_runs_the_slow_ones(root: Path, tmp_path: Path) -> None:
    """Without the option they are deselected, with it they run."""
    done = session(root, tmp_path, "--deep", holes=False, ci="")
    assert "3 passed, 1 skipped" in done.stdout
    assert "deselected" not in done.stdout
