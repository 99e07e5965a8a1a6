"""The generated documentation is what the code says today."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_docs_are_current(root: Path) -> None:
    """``python scripts/docs.py`` rewrites them; this only looks."""
    asked = subprocess.run(
        [sys.executable, "scripts/docs.py", "--check"], cwd=root, capture_output=True, text=True, check=False
    )
    assert asked.returncode == 0, asked.stdout + asked.stderr


def test_check_sees_a_stale_page(root: Path, tmp_path: Path) -> None:
    """A page that was edited by hand, or is missing, is named."""
    made = [sys.executable, "scripts/docs.py", "--out", str(tmp_path)]
    assert subprocess.run(made, cwd=root, capture_output=True, check=False).returncode == 0
    page = tmp_path / "cli.md"
    page.write_text(page.read_text("utf-8") + "edited\n", "utf-8")
    (tmp_path / "plan.md").unlink()
    asked = subprocess.run([*made, "--check"], cwd=root, capture_output=True, text=True, check=False)
    assert asked.returncode == 1
    assert "cli.md" in asked.stderr
    assert "plan.md" in asked.stderr
    assert "rules.md" not in asked.stderr
