"""``import tunewise``: light, complete, and clear where another package hides one of ours."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.limits import HANG_S

HEAVY = ("torch", "transformers", "pydantic", "numpy", "faiss", "typer")


def python(*arguments: str, cwd: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run an interpreter in a folder, with one folder on its search path besides what is installed."""
    env = {"PYTHONPATH": str(path)} if path else {}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env={"PATH": "", **env}, capture_output=True, text=True, timeout=HANG_S,
        check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder of the user's."""
    (tmp_path / "project").mkdir()
    return tmp_path / "project"


def test_import_and_dir_load_no_heavy_library(root: Path, folder: Path) -> None:
    code = f"import sys, tunewise; assert 'recommend' in dir(tunewise); print([n for n in {HEAVY} if n in sys.modules])"
    assert python("-c", code, cwd=folder, path=root).stdout == "[]\n"


@pytest.mark.parametrize("module", ["rag/__init__.py", "rag.py", "runners.py", "advisor/__init__.py"])
def test_a_module_of_the_users_that_hides_ours_is_named(root: Path, folder: Path, module: str) -> None:
    hiding = folder / module
    hiding.parent.mkdir(exist_ok=True)
    hiding.write_text("raise RuntimeError('the decoy was imported')\n", "utf-8")
    name = module.split("/")[0].removesuffix(".py")
    (folder / "script.py").write_text("import tunewise\n", "utf-8")
    for arguments in (("-c", "import tunewise"), ("script.py",)):
        done = python(*arguments, cwd=folder, path=root)
        message = done.stderr[done.stderr.index("ImportError: ") :]
        assert f"another {name!r} hides the package of tunewise" in message
        assert str(hiding if hiding.parent == folder else hiding.parent) in message
        assert str(root / name) in message
        assert "Rename yours" in message
        assert len(message.splitlines()) == 4
    # The command does not look in the working directory, however it is started.
    for flags in (("-m", "tunewise"), ("-P", "-m", "tunewise"), ("-mtunewise",)):
        done = python(*flags, "--version", cwd=folder, path=root)
        assert (done.returncode, done.stdout.split()[0]) == (0, "tunewise"), done.stderr


def test_a_module_that_was_imported_before_is_named(root: Path, folder: Path) -> None:
    code = "import sys, types; sys.modules['rag'] = types.ModuleType('rag'); import tunewise"
    assert "found first: <rag in sys.modules>" in python("-c", code, cwd=folder, path=root).stderr
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "runners.py").write_text("", "utf-8")
    code = (
        "import sys; sys.path.insert(0, 'elsewhere'); import runners; sys.path.pop(0)\n"
        "try:\n    import tunewise\nexcept ImportError as error:\n    print(error.name, error.path)"
    )
    assert python("-c", code, cwd=folder, path=root).stdout.split()[0] == "runners"


def test_what_hides_nothing_raises_no_alarm(root: Path, folder: Path) -> None:
    """A folder without ``__init__``, a later search path, our package imported first, links, an archive."""
    (folder / "rag").mkdir()
    later = folder / "later"
    (later / "rag").mkdir(parents=True)
    (later / "rag" / "__init__.py").write_text("", "utf-8")
    code = "import rag, sys; sys.path += ['later']; import tunewise; sys.path.insert(0, 'later')"
    code += "; print(tunewise.Query(k=2).k)"
    assert python("-c", code, cwd=folder, path=root).stdout == "2\n"
    linked = folder / "linked"
    linked.mkdir()
    for name in ("tunewise.py", "advisor", "runners", "rag"):
        (linked / name).symlink_to(root / name)
    assert (
        python("-c", "import tunewise; print(tunewise.__name__)", cwd=folder, path=linked).stdout
        == "tunewise\n"
    )
    archive = folder / "all.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.write(root / "tunewise.py", "tunewise.py")
        for name in ("advisor", "runners", "rag"):
            packed.write(root / name / "__init__.py", f"{name}/__init__.py")
    done = python("-c", "import tunewise; print(tunewise.__file__)", cwd=folder, path=archive)
    assert done.stdout.strip().startswith(str(archive)), done.stderr


def test_a_missing_package_is_named(root: Path, folder: Path) -> None:
    partial = folder / "partial"
    partial.mkdir()
    shutil.copy(root / "tunewise.py", partial)
    done = python(
        "-I", "-S", "-c", f"import sys; sys.path.append({str(partial)!r}); import tunewise", cwd=folder
    )
    assert "tunewise is not whole: its package 'rag' is not in" in done.stderr
