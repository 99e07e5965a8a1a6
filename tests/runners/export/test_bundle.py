"""A run in one archive and back: what comes out is the run, and an archive that lies is refused before it is a folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rag.errors import BadInput, UsageProblem
from runners.export.bundle import LIST, RUN_PREFIX, unbundle
from runners.export.export import export
from runners.export.job import ExportRequest
from runners.plan.schema import parse_plan
from runners.run_folder import RunFolder, open_run_folder
from runners.runs.run import open_session

Members = dict[str, bytes]


@pytest.fixture(scope="module")
def archive(llama: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a finished run."""
    made = export(llama.path, ExportRequest("bundle", out=tmp_path_factory.mktemp("bundle") / "out"))
    return made.out / "harbour.zip"


@pytest.fixture
def rewritten(archive: Path, tmp_path: Path) -> Callable[..., Path]:
    """Write the archive again after a change of its members or its list."""

    def write(
        change: Callable[[Members, dict[str, Any]], None],
        extra: Callable[[zipfile.ZipFile], None] | None = None,
    ) -> Path:
        with zipfile.ZipFile(archive) as source:
            members = {info.filename: source.read(info) for info in source.infolist()}
        listed = json.loads(members.pop(LIST))
        change(members, listed)
        file = tmp_path / "changed.zip"
        with zipfile.ZipFile(file, "w") as target:
            for name, data in members.items():
                target.writestr(name, data)
            target.writestr(LIST, json.dumps(listed))
            if extra:
                extra(target)
        return file

    return write


def test_a_bundle_becomes_the_run_again_and_answers(archive: Path, llama: Any, tmp_path: Path) -> None:
    made = unbundle(archive, tmp_path / "moved")
    assert (made.to, made.checked["run"], made.checked["passages"]) == ("run", "harbour", 10)
    files = {p.relative_to(llama.path).as_posix() for p in llama.path.rglob("*") if p.is_file()}
    back = {p.relative_to(made.out).as_posix() for p in made.out.rglob("*") if p.is_file()}
    assert back == {f for f in files if not f.rsplit("/")[-1].startswith(".writer")}
    assert all(
        (made.out / f).read_bytes() == (llama.path / f).read_bytes()
        for f in back
        if not f.endswith(".sqlite")
    )
    session = open_session(made.out)
    (answer,) = session.ask(["How many berths has the Amber Pier?"], session.arm("lora"))
    first = open_session(llama.path)
    assert answer.text == first.ask(["How many berths has the Amber Pier?"], first.arm("lora"))[0].text
    with pytest.raises(UsageProblem, match="exists"):
        unbundle(archive, made.out)
    unbundle(archive, made.out, overwrite=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x").write_text("x", "utf-8")
    with pytest.raises(UsageProblem, match="not a run folder"):
        unbundle(archive, tmp_path / "mine", overwrite=True)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_only_a_run_that_nobody_writes_is_replaced(archive: Path, tmp_path: Path) -> None:
    """A plan among documents makes no run, and a run that is being written stays where it is."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "plan.yaml").write_text("name: mine\n", "utf-8")
    with pytest.raises(UsageProblem, match="not a run folder"):
        unbundle(archive, project, overwrite=True)
    assert [p.name for p in project.iterdir()] == ["plan.yaml"]
    out = unbundle(archive, tmp_path / "out").out
    (out / "mine.txt").write_text("x", "utf-8")
    with open_run_folder(out).writing(), pytest.raises(BadInput, match="written by another process"):
        unbundle(archive, out, overwrite=True)
    assert (out / "mine.txt").is_file()
    unbundle(archive, out, overwrite=True)
    assert not (out / "mine.txt").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "project"]


def test_equal_runs_give_equal_archives(archive: Path, llama: Any, tmp_path: Path) -> None:
    again = export(llama.path, ExportRequest("bundle", out=tmp_path / "again"))
    assert (again.out / "harbour.zip").read_bytes() == archive.read_bytes()


def _stranger(members: Members, listed: dict[str, Any]) -> None:
    members[f"{RUN_PREFIX}notes.txt"] = b"x"


def _outside(name: str) -> Callable[[Members, dict[str, Any]], None]:
    def change(members: Members, listed: dict[str, Any]) -> None:
        data = members.pop(f"{RUN_PREFIX}plan.yaml")
        members[f"{RUN_PREFIX}{name}"] = data
        listed["files"][name] = listed["files"].pop("plan.yaml")

    return change


def _shorter(members: Members, listed: dict[str, Any]) -> None:
    members[f"{RUN_PREFIX}plan.yaml"] = members[f"{RUN_PREFIX}plan.yaml"][:-1]


def _changed(members: Members, listed: dict[str, Any]) -> None:
    members[f"{RUN_PREFIX}plan.yaml"] = members[f"{RUN_PREFIX}plan.yaml"][:-1] + b"#"


def _missing(members: Members, listed: dict[str, Any]) -> None:
    members.pop(f"{RUN_PREFIX}plan.yaml")


def _huge(members: Members, listed: dict[str, Any]) -> None:
    listed["files"]["plan.yaml"]["bytes"] = 2**50


def _relisted(members: Members, listed: dict[str, Any]) -> None:
    """Change a file and its hash in the list: then the run's own manifest tells."""
    data = members[f"{RUN_PREFIX}report.md"] + b"# better\n"
    members[f"{RUN_PREFIX}report.md"] = data
    listed["files"]["report.md"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _newer(members: Members, listed: dict[str, Any]) -> None:
    listed["schema"] = 2


def _newer_form(members: Members, listed: dict[str, Any]) -> None:
    listed |= {"schema": 7, "runs": listed.pop("run"), "files": []}


def _unnumbered(members: Members, listed: dict[str, Any]) -> None:
    listed["schema"] = 0


def _two_in_one(members: Members, listed: dict[str, Any]) -> None:
    """A name that is a file's and a folder's."""
    members[f"{RUN_PREFIX}plan.yaml/more"] = b"x"
    listed["files"]["plan.yaml/more"] = {"bytes": 1, "sha256": hashlib.sha256(b"x").hexdigest()}


def _named(members: Members, listed: dict[str, Any]) -> None:
    listed["run"] = "../elsewhere"


def _top(members: Members, listed: dict[str, Any]) -> None:
    members["setup.py"] = b"x"


WAYS_OUT = (
    "../plan.yaml",
    "/plan.yaml",
    "a/../../plan.yaml",
    "..\\plan.yaml",
    "C:plan.yaml",
    ".hidden/plan.yaml",
    "a//plan.yaml",
)
LIES = (
    (_stranger, "not in its bundle.json"),
    (_shorter, "bytes, not"),
    (_changed, "differs from its list"),
    (_missing, "plan.yaml is missing"),
    (_huge, "bytes, not"),
    (_newer, "schema 2"),
    (_relisted, "the run in {file} is damaged: report.md has"),
    (_newer_form, "newer tunewise: tunewise-bundle of schema 7"),
    (_unnumbered, "its schema is 0"),
    (_two_in_one, "plan.yaml/more' cannot be written"),
    (_outside("n" * 300), "cannot be written"),
    (_named, "malformed"),
    (_top, "no plain file"),
    *((_outside(name), "no plain file") for name in WAYS_OUT),
)


@pytest.mark.parametrize(("change", "said"), LIES)
def test_an_archive_that_lies_is_refused_and_nothing_is_left(
    rewritten: Callable[..., Path], tmp_path: Path, change: Callable[..., None], said: str
) -> None:
    file = rewritten(change)
    with pytest.raises(BadInput) as refused:
        unbundle(file, tmp_path / "out")
    assert said.format(file=file) in refused.value.message
    assert refused.value.exit_code == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["changed.zip"]


def test_links_doubles_and_bombs_are_refused(
    rewritten: Callable[..., Path], archive: Path, tmp_path: Path
) -> None:
    def link(target: zipfile.ZipFile) -> None:
        info = zipfile.ZipInfo(f"{RUN_PREFIX}report.json")
        info.external_attr = 0o120777 << 16
        target.writestr(info, "/etc/passwd")

    with pytest.raises(BadInput, match="no plain file"):
        unbundle(rewritten(lambda m, _: m.pop(f"{RUN_PREFIX}report.json"), link), tmp_path / "out")

    def double(target: zipfile.ZipFile) -> None:
        target.writestr(f"{RUN_PREFIX}PLAN.yaml", b"x")

    def lists_both(members: Members, listed: dict[str, Any]) -> None:
        listed["files"]["PLAN.yaml"] = {"bytes": 1, "sha256": "0" * 64}

    with pytest.raises(BadInput, match="in it twice"):
        unbundle(rewritten(lists_both, double), tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr(LIST, b" " * (65 << 20))
    with pytest.raises(BadInput, match="bytes"):
        unbundle(tmp_path / "bomb.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("cut", [0, 1, 1000, -1, -30])
def test_an_archive_that_is_cut_off_is_refused(archive: Path, tmp_path: Path, cut: int) -> None:
    data = archive.read_bytes()
    (tmp_path / "cut.zip").write_bytes(data[: cut if cut >= 0 else len(data) + cut])
    with pytest.raises(BadInput):
        unbundle(tmp_path / "cut.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_flipped_bytes_are_found(archive: Path, tmp_path: Path) -> None:
    """Wherever a byte is flipped, the archive is refused, or nothing of the run is other than it was."""
    data, refused = archive.read_bytes(), 0
    for place in range(40, len(data), len(data) // 12):
        (tmp_path / "flipped.zip").write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        try:
            unbundle(tmp_path / "flipped.zip", tmp_path / f"out{place}")
        except BadInput:
            refused += 1
    assert refused >= 10


@pytest.mark.parametrize("packed", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, zipfile.ZIP_DEFLATED])
def test_damage_is_told_however_a_member_is_packed(tmp_path: Path, packed: int) -> None:
    file = tmp_path / "packed.zip"
    with zipfile.ZipFile(file, "w", packed) as target:
        target.writestr(LIST, json.dumps({"kind": "tunewise-bundle", "schema": 1, "run": "a", "files": {}}))
    data = bytearray(file.read_bytes())
    begin = 30 + len(LIST) + 4
    data[begin : begin + 12] = b"\xff" * 12
    file.write_bytes(data)
    with pytest.raises(BadInput, match="damaged"):
        unbundle(file, tmp_path / "out")


def test_a_bundles_folder_is_taken_and_what_is_no_file_is_told(
    archive: Path, llama: Any, tmp_path: Path
) -> None:
    assert unbundle(archive.parent, tmp_path / "out").checked["run"] == "harbour"
    with pytest.raises(BadInput, match="is a run folder already") as refused:
        unbundle(llama.path, tmp_path / "again")
    assert "--to bundle" in refused.value.hint
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="holds 0 archives"):
        unbundle(tmp_path / "empty", tmp_path / "again")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadInput, match="no plain file"):
        unbundle(tmp_path / "pipe", tmp_path / "again")


@pytest.fixture
def shelf() -> Iterator[Path]:
    """A folder that everybody may write into, whoever the tests run as."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


def test_a_run_where_nothing_can_be_written_is_bundled(archive: Path, llama: Any, shelf: Path) -> None:
    shutil.copytree(llama.path, shelf / "run")
    folders = [path for path in (shelf / "run").rglob("*") if path.is_dir()]
    for folder in (shelf / "run", *folders):
        folder.chmod(0o555)
    child = os.fork()
    if child == 0:  # somebody else, to whom the modes mean something
        code = 1
        try:
            if os.geteuid() == 0:
                os.setuid(65534)
            export(shelf / "run", ExportRequest("bundle", out=shelf / "out"))
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert (shelf / "out" / "harbour.zip").read_bytes() == archive.read_bytes()
    for folder in (shelf / "run", *folders):
        folder.chmod(0o755)


def test_a_run_that_was_not_finished_is_not_bundled(llama: Any, tmp_path: Path) -> None:
    shutil.copytree(llama.path, tmp_path / "run")
    (tmp_path / "run" / "manifest.json").unlink()
    with pytest.raises(BadInput, match="was not finished"):
        export(tmp_path / "run", ExportRequest("bundle", out=tmp_path / "out"))
    shutil.copytree(llama.path, tmp_path / "linked")
    (tmp_path / "linked" / "index" / "extra").symlink_to("/etc/passwd")
    with pytest.raises(BadInput, match="link"):
        export(tmp_path / "linked", ExportRequest("bundle", out=tmp_path / "out"))


def test_a_damaged_index_is_not_bundled(llama: Any, tmp_path: Path) -> None:
    shutil.copytree(llama.path, tmp_path / "run")
    vectors = next((tmp_path / "run" / "index").rglob("vectors.faiss"))
    vectors.write_bytes(vectors.read_bytes()[:-1] + b"\x01")
    for to in ("bundle", "index"):
        with pytest.raises(BadInput, match="damaged"):
            export(tmp_path / "run", ExportRequest(to, out=tmp_path / to))


def test_the_endpoints_that_a_bundles_plan_asks_are_named(tmp_path: Path) -> None:
    """Whoever asks such a run sends its key there, so it is told before anything is asked."""
    asked = {"name": "openai:theirs@https://models.example:8443/v1"}
    body = {
        "name": "far",
        "choice": "prompting",
        "model": asked,
        "judge": {"name": "openai:judge@http://10.0.0.1/v1"},
        "data": {"questions": "q.jsonl"},
        "weights": {"token_f1": 1},
        "steps": [{"kind": "evaluate", "arm": "prompting"}],
    }
    run = RunFolder.create(tmp_path / "far", parse_plan(body))
    run.seal({})
    made = export(run.path, ExportRequest("bundle", out=tmp_path / "bundle"))
    (tmp_path / "back").mkdir()
    notes = unbundle(made.out, tmp_path / "back").notes
    assert [note.split(":")[0] for note in notes] == [
        "its plan asks theirs at models.example",
        "its plan asks judge at 10.0.0.1",
    ]
    assert all("API key" in note for note in notes)


def test_what_is_no_bundle_is_told(tmp_path: Path, llama: Any) -> None:
    with pytest.raises(BadInput, match="there is no file"):
        unbundle(tmp_path / "nowhere.zip")
    (tmp_path / "text.zip").write_text("hello", "utf-8")
    with pytest.raises(BadInput, match="is no bundle"):
        unbundle(tmp_path / "text.zip")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as other:
        other.writestr("a.txt", "x")
    with pytest.raises(BadInput, match=r"it has no bundle\.json"):
        unbundle(tmp_path / "other.zip")
