"""Ready files for CI servers that recheck a run when its documents, prompt, examples or questions change."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from rag.version import __version__
from runners.plan.schema import Plan

MARKDOWN_FILE, JUNIT_FILE = "recheck.md", "recheck.xml"
_GITHUB = """\
# Rechecks the run {run} when what it was measured with changes. Written by: {made_by}
# The run folder must be in the repository (Git LFS holds its index and adapters well), or be fetched before the recheck.
# No package index has tunewise: put its wheel (pip wheel --no-deps CHECKOUT) into the repository.
name: tunewise recheck

on:
  push:
    branches: [main]
    paths:
{paths}
  pull_request:
    paths:
{paths}
  workflow_dispatch:

permissions:
  contents: read

jobs:
  recheck:
    runs-on: ubuntu-latest
    timeout-minutes: 120
    env:
      TUNEWISE_CACHE: ${{{{ github.workspace }}}}/.tunewise-cache
    steps:
      - uses: actions/checkout@v5
        with:
          lfs: true
      - uses: actions/setup-python@v6
        with:
          python-version: "3.12"
          cache: pip
          cache-dependency-path: .github/workflows/tunewise.yml
      - name: Keep models between runs
        uses: actions/cache@v4
        with:
          path: .tunewise-cache
          key: tunewise-${{{{ runner.os }}}}-${{{{ hashFiles({key}) }}}}
      - name: Install
        run: pip install {wheel}
      - name: Recheck
        run: >-
          {command}
      - name: Show the result
        if: always()
        run: if [ -f {markdown} ]; then cat {markdown} >> "$GITHUB_STEP_SUMMARY"; fi
      - name: Keep the reports
        if: always()
        uses: actions/upload-artifact@v4
        with:
          name: tunewise-recheck
          path: |
            {markdown}
            {junit}
          if-no-files-found: ignore
"""
_GITLAB = """\
# Rechecks the run {run} when what it was measured with changes. Written by: {made_by}
# The run folder must be in the repository (Git LFS holds its index and adapters well), or be fetched before the recheck.
# No package index has tunewise: put its wheel (pip wheel --no-deps CHECKOUT) into the repository.
tunewise recheck:
  image: python:3.12
  timeout: 2h
  rules:
    - changes:
{paths}
  variables:
    TUNEWISE_CACHE: $CI_PROJECT_DIR/.tunewise-cache
    PIP_CACHE_DIR: $CI_PROJECT_DIR/.pip-cache
  cache:
    key: tunewise
    paths: [.tunewise-cache, .pip-cache]
  script:
    - pip install {wheel}
    - >-
      {command}
  artifacts:
    when: always
    paths: [{markdown}, {junit}]
    reports:
      junit: {junit}
"""
CI_SERVERS = {"github": _GITHUB, "gitlab": _GITLAB}
"""The template of each server's file."""


def ci_workflow(server: str, run: Path, plan: Plan, flags: Sequence[object] = (), prompt: str = "") -> str:
    """Return the workflow file of a CI server for a run.

    Paths are relative to the current folder, which is to be the root of the repository; those elsewhere stay as they are.

    Args:
        server: one of :data:`CI_SERVERS`.
        run: the run folder.
        plan: its plan, with the paths of the data.
        flags: flags of the recheck besides the data.
        prompt: the value of ``--prompt``, where it was given.
    """
    data = plan.data
    named = {
        "--documents": data.documents if plan.index else None,
        "--examples": data.examples,
        "--questions": data.test_questions or data.questions,
    }
    given = {flag: _relative(path) for flag, path in named.items() if path}
    if prompt:
        given["--prompt"] = prompt
    parts = ["tunewise", "recheck", _relative(run)]
    parts += [part for flag, value in given.items() for part in (flag, value)]
    parts += [*map(str, flags), "--markdown", MARKDOWN_FILE, "--junit", JUNIT_FILE, "--yes"]
    watched = [_relative(run / "plan.yaml"), *given.values()]
    if prompt and not Path(prompt).is_file():
        watched.remove(prompt)
    indent = "      - " if server == "github" else "        - "
    return CI_SERVERS[server].format(
        run=_relative(run),
        made_by=f"tunewise recheck {shlex.quote(_relative(run))} --workflow {server}",
        paths="\n".join(f"{indent}{_quoted(_pattern(path))}" for path in watched),
        key=_quoted(_relative(run / "plan.yaml"), "'"),
        command=shlex.join(parts),
        markdown=MARKDOWN_FILE,
        junit=JUNIT_FILE,
        wheel=f"./tunewise-{__version__}-py3-none-any.whl",
    )


def outside_paths(run: Path, plan: Plan) -> list[str]:
    """Return the files and folders that a workflow reads and that are not below the current folder."""
    data = plan.data
    paths = [
        run,
        data.documents if plan.index else None,
        data.examples,
        data.test_questions or data.questions,
    ]
    here = Path.cwd().resolve()
    return [str(path) for path in paths if path and not path.resolve().is_relative_to(here)]


def _relative(path: Path) -> str:
    """Return a path below the current folder relative to it, in POSIX form; any other one as it is."""
    here, whole = Path.cwd().resolve(), path.resolve()
    return whole.relative_to(here).as_posix() if whole.is_relative_to(here) else str(path)


def _pattern(path: str) -> str:
    """Return the pattern that matches a file, or everything below a folder."""
    return f"{path}/**" if Path(path).is_dir() else path


def _quoted(text: str, mark: str = '"') -> str:
    """Return a text as a quoted scalar of YAML, or of a workflow's expression (single quotes, doubled inside)."""
    if mark == "'":
        return "'" + text.replace("'", "''") + "'"
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
