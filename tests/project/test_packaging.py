"""The wheel's content, and that the installed command works in an empty folder with another ``rag`` package in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.support.limits import HANG_S

PACKAGES = {"advisor", "runners", "rag"}

# Prints where an installed interpreter finds the packages and the example.
LOCATIONS = """
import json, advisor, runners, rag, tunewise
from importlib.resources import files
desk = files("advisor") / "harbor_desk"
documents = [entry.name for entry in (desk / "documents").iterdir()]
typed = [name for name in ("advisor", "runners", "rag") if (files(name) / "py.typed").is_file()]
print(json.dumps({"files": [advisor.__file__, runners.__file__, rag.__file__, tunewise.__file__], "typed": typed,
                  "documents": len(documents), "desk": sorted(entry.name for entry in desk.iterdir())}))
"""


def call(*command: str | Path, cwd: Path, **extra: str) -> str:
    """Run a command without the variables that change where Python looks for modules; return its stdout."""
    env = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "PYTHONHOME", "PYTHONSAFEPATH")
    } | extra
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source with the installed build backend."""
    out = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-P", "-m", "build", "--wheel", "--no-isolation", "--outdir", out, root, cwd=out)
    (built,) = out.glob("tunewise-*.whl")
    return built


def environment(folder: Path, *install: str | Path) -> Path:
    """Make a virtual environment that has only tunewise of its own and the packages of this interpreter.

    Nothing is downloaded.

    Args:
        folder: the environment's folder.
        install: the last arguments of ``pip install``.

    Returns:
        The environment's folder of scripts.
    """
    call(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    own = Path(
        call(
            scripts / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder
        ).strip()
    )
    (own / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n", "utf-8")
    pip: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        scripts / "python",
        "install",
        "--quiet",
    ]
    call(*pip, "--ignore-installed", "--no-deps", "--no-index", "--no-build-isolation", *install, cwd=folder)
    return scripts


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A user's folder with only a ``rag`` package of their own in it, which must not be imported."""
    decoy = tmp_path / "elsewhere" / "rag"
    decoy.mkdir(parents=True)
    (decoy / "__init__.py").write_text("raise RuntimeError('the decoy was imported')\n", "utf-8")
    return decoy.parent


def test_wheel_contains_exactly_the_packages(wheel: Path, root: Path) -> None:
    """The packages and the metadata: every module, the example, py.typed; no tests, docs or caches."""
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    metadata = next(top for top in tops if top.endswith(".dist-info"))
    assert tops == {"tunewise.py", "benchmarks", *PACKAGES, metadata}
    scorers = {path.relative_to(root).as_posix() for path in (root / "benchmarks" / "scorers").glob("*.py")}
    assert {name for name in names if name.startswith("benchmarks/")} == scorers
    assert len(scorers) == 3
    for package in PACKAGES:
        assert f"{package}/py.typed" in names
        modules = {path.relative_to(root).as_posix() for path in (root / package).rglob("*.py")}
        assert modules == {name for name in names if name.startswith(f"{package}/") and name.endswith(".py")}
    assert "advisor/skills/tunewise/SKILL.md" in names
    example = [path for path in (root / "advisor" / "harbor_desk").rglob("*") if path.is_file()]
    assert len(example) >= 45
    assert {path.relative_to(root).as_posix() for path in example if "__pycache__" not in path.parts} <= set(
        names
    )
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert not [name for name in names if name.endswith(".pyc") or "test" in name.split("/")[0]]


def test_installed_wheel_runs_in_an_empty_folder(wheel: Path, tmp_path: Path, empty: Path) -> None:
    """The installed command does not import the user's package, and finds its example."""
    scripts = environment(tmp_path / "venv", wheel)
    assert_command_runs(scripts, empty)
    locations = json.loads(call(scripts / "python", "-P", "-c", LOCATIONS, cwd=empty))
    for file in locations["files"]:
        assert Path(file).is_relative_to(tmp_path / "venv"), file
    assert locations["documents"] >= 45
    assert set(locations["typed"]) == PACKAGES
    case = {
        "id": "one",
        "winner": "few-shot",
        "answers": {"task_needs_facts": "none", "labelled_examples": 20},
    }
    (tmp_path / "cases.json").write_text(json.dumps({"cases": [case]}), "utf-8")
    scores = json.loads(
        call(scripts / "tunewise", "eval-advice", tmp_path / "cases.json", "--json", cwd=empty)
    )
    assert (scores["n"], scores["accepted"]) == (1, 1)


def test_editable_install_runs_in_an_empty_folder(tmp_path: Path, empty: Path, root: Path) -> None:
    """An editable install runs the modules and the example of the repository."""
    scripts = environment(tmp_path / "venv", "--editable", root)
    assert_command_runs(scripts, empty)
    locations = json.loads(call(scripts / "python", "-P", "-c", LOCATIONS, cwd=empty))
    for file in locations["files"]:
        assert Path(file).is_relative_to(root), file
    assert locations["documents"] >= 45


def assert_command_runs(scripts: Path, empty: Path) -> None:
    """Assert that the command prints its version and the demo's help, and writes no file."""
    assert call(scripts / "tunewise", "--version", cwd=empty) == "tunewise 0.2.0\n"
    for module in (("-m",), ("-P", "-m")):
        assert call(scripts / "python", *module, "tunewise", "--version", cwd=empty) == "tunewise 0.2.0\n"
    assert "--quick" in call(scripts / "tunewise", "demo", "--help", cwd=empty, COLUMNS="100", NO_COLOR="1")
    assert [path.name for path in empty.iterdir()] == ["rag"]
