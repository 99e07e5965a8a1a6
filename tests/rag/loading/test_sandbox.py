"""Files that exceed a limit end the worker process, not the build; bombs are skipped."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rag.errors import BadInput, CannotRun
from rag.loading.base import Skipped
from rag.loading.reader import load_documents, parse_file
from rag.loading.sandbox import Limits, Sandbox
from rag.types import Document
from tests.support.limits import HANG_S, children_seconds


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as running:
        yield running


def archive(parts: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, data in parts.items():
            zipped.writestr(name, data)
    return out.getvalue()


def test_worker_returns_what_the_loader_returns(sandbox: Sandbox, seeds: dict[str, bytes]) -> None:
    for name, data in seeds.items():
        media = parse_file(name, data)[0].media  # type: ignore[union-attr]
        assert sandbox.parse(name, media, data) == parse_file(name, data), name
    assert sandbox.started == 1


def test_slow_file_is_skipped_and_the_worker_replaced() -> None:
    with Sandbox(Limits(seconds=HANG_S)) as sandbox:
        assert isinstance(sandbox.parse("a.md", "markdown", b"text")[0], Document)
        sandbox.limits = Limits(seconds=0.5)
        (slow,) = sandbox.parse("a.html", "html", b"<a " * 3_000_000)
        assert slow == Skipped("a.html", "parsing it took longer than 0.5 s")
        sandbox.limits = Limits(seconds=HANG_S)
        assert isinstance(sandbox.parse("a.md", "markdown", b"text")[0], Document)
        assert sandbox.started == 2


def test_file_over_the_memory_limit_is_skipped() -> None:
    with Sandbox(Limits(memory_mib=160)) as sandbox:
        (skipped,) = sandbox.parse("a.md", "markdown", b"\n" * 5_000_000)
        if not sandbox.memory_limited:  # reported to the user; the time limit still holds
            return
        assert skipped == Skipped("a.md", "parsing it needs more than 160 MiB of memory")
        assert isinstance(sandbox.parse("b.md", "markdown", b"text")[0], Document)


def test_killed_worker_is_replaced() -> None:
    with Sandbox() as sandbox:
        sandbox.parse("a.md", "markdown", b"text")
        process = sandbox._process
        assert process is not None
        process.kill()
        process.wait()
        assert "crashed" in sandbox.parse("a.md", "markdown", b"text")[0].reason  # type: ignore[union-attr]
        assert isinstance(sandbox.parse("a.md", "markdown", b"text")[0], Document)


def test_worker_ends_when_its_input_ends() -> None:
    command = [sys.executable, "-P", "-m", "rag.loading.worker", str(1 << 30), "1000"]
    done = subprocess.run(
        command, input=b"", capture_output=True, timeout=HANG_S, check=True, env=_environment()
    )
    assert done.stdout.startswith(b'{"limited":')


def _environment() -> dict[str, str]:
    from rag.loading.sandbox import _environment

    return _environment()


def test_worker_that_cannot_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHOME", os.devnull)
    with Sandbox() as sandbox, pytest.raises(CannotRun, match="does not start"):
        sandbox.parse("a.md", "markdown", b"text")


TYPES = b'<?xml version="1.0"?><Types xmlns="x"></Types>'
BILLION_LAUGHS = (
    b"<!DOCTYPE x ["
    + b"".join(b'<!ENTITY e%d "%s">' % (n, b"&e%d;" % (n - 1) * 10) for n in range(1, 9))
    + b"]>"
)
MAIL_IN_MAIL = b"Subject: x\nContent-Type: multipart/mixed; boundary=b\n\n" + (
    b"--b\nContent-Type: message/rfc822\n\n" * 2_000
)
ALIASES = b"".join(b"a%d: &a%d [%s]\n" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 30))
MANY_ENTRIES = b"PK\x03\x04" + (b"PK\x01\x02" + bytes(42)) * 500_000
MANY_ENTRIES += b"PK\x05\x06" + bytes(8) + (len(MANY_ENTRIES) - 4).to_bytes(4, "little") + b"\4\0\0\0\0\0"
BOMBS = {
    "crowded.docx": MANY_ENTRIES,
    "zeros.docx": archive({"[Content_Types].xml": TYPES, "word/document.xml": bytes(200 << 20)}),
    "laughs.docx": archive(
        {"[Content_Types].xml": TYPES, "word/document.xml": BILLION_LAUGHS + b"<x>&e8;</x>"}
    ),
    "laughs.xlsx": archive(
        {"[Content_Types].xml": TYPES, "xl/workbook.xml": BILLION_LAUGHS + b"<x>&e8;</x>"}
    ),
    "parts.pptx": archive({"[Content_Types].xml": TYPES} | {f"ppt/{n}": b"" for n in range(20_001)}),
    "nested.html": b"<div>" * 100_000,
    "nested.json": b"[" * 200_000,
    "nested.eml": MAIL_IN_MAIL,
    "aliases.md": b"---\na0: &a0 x\n" + ALIASES + b"---\ntext\n",
    "nested.md": b"---\na: " + b"[" * 7_000 + b"\n---\ntext\n",
    "wide.csv": b"a" + b",a" * 2_000_000 + b"\n" + b"1" + b",1" * 100_000 + b"\n",
    "line.txt": b"word " * 1_000_000,
    "spaces.md": b"# " + b" " * 250_000 + b"x",
    "rules.rst": b"=" * 250_000 + b"x\n" + b"- " * 100_000,
    "open.py": b"(" * 250_000,
    "tags.html": b"<a href='" * 20_000,
}
ENDLESS = "tags.html"
"""Takes more than a minute of processor time, so the time limit ends it; all others are refused or read."""
BOMB_SECONDS = 25.0
"""Processor time; the costliest, crowded.docx, takes 2.3 s."""


@pytest.mark.parametrize("name", BOMBS)
def test_bomb_files_are_bounded_in_time(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(BOMBS[name])
    (tmp_path / "ok.md").write_text("text")
    spent = time.process_time() + children_seconds()
    loaded = load_documents(tmp_path, Limits(seconds=1 if name == ENDLESS else HANG_S))
    assert time.process_time() + children_seconds() - spent < BOMB_SECONDS
    assert loaded.total == 2
    if name == ENDLESS:
        assert loaded.skipped == (Skipped(name, "parsing it took longer than 1 s"),)
    if name.partition(".")[0] in ("zeros", "laughs", "parts"):
        (bomb,) = loaded.skipped
        assert "bomb" in bomb.reason or "entities" in bomb.reason


def test_long_text_is_cut_into_bounded_blocks() -> None:
    (document,) = parse_file("line.txt", b"word " * 20_000)
    assert isinstance(document, Document)
    assert max(len(block.text) for block in document.blocks) <= 20_000
    assert "".join(block.text for block in document.blocks) == document.raw.rstrip()
    assert all(document.raw[b.start : b.end] == b.text for b in document.blocks)


def test_too_small_limits_are_refused() -> None:
    with pytest.raises(BadInput, match="memory_mib is 1,"):
        Limits(memory_mib=1)


def test_missing_extra_is_named_with_its_install_command(seeds: dict[str, bytes], tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('docx', 'pptx', 'openpyxl')))\n"
        "from rag.loading.reader import parse_file\n"
        "print(*[parse_file(n, open(n, 'rb').read())[0].reason for n in sys.argv[1:]], sep='\\n')"
    )
    names = ["a.docx", "a.pptx", "a.xlsx"]
    for name in names:
        (tmp_path / name).write_bytes(seeds[name])
    done = subprocess.run(
        [sys.executable, "-c", code, *names],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env=_environment(),
    )
    lines = done.stdout.splitlines()
    assert [line.split()[3].rstrip(":") for line in lines] == ["python-docx", "python-pptx", "openpyxl"]
    assert all('pip install "tunewise[office]"' in line for line in lines)
