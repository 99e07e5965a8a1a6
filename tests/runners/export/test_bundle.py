"""The `bundle` export and its import: round trip, and refusal of damaged or hostile archives."""

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
from runners.models.endpoint import endpoint_host
from runners.models.resolve import parse_remote
from runners.plan.schema import parse_plan
from runners.run_folder import RunFolder, open_run_folder, read_run_plan
from runners.runs.endpoint_consent import allow_endpoints
from runners.runs.opened import OpenRun
from tests.support.opened import opened_run

Members = dict[str, bytes]


@pytest.fixture(scope="module")
def archive(llama: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a finished run."""
    result = export(llama.path, ExportRequest("bundle", out=tmp_path_factory.mktemp("bundle") / "out"))
    return Path(result.out) / "harbour.zip"


@pytest.fixture
def rewrite(archive: Path, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes the archive again with changed members or a changed list."""

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


def test_unbundled_run_equals_the_original_and_answers(archive: Path, llama: Any, tmp_path: Path) -> None:
    result = unbundle(archive, tmp_path / "moved")
    assert (result.to, result.checked["run"], result.checked["passages"]) == ("run", "harbour", 10)
    out = Path(result.out)
    files = {p.relative_to(llama.path).as_posix() for p in llama.path.rglob("*") if p.is_file()}
    unpacked = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert unpacked == {f for f in files if not f.rsplit("/")[-1].startswith(".writer")}
    assert all(
        (out / f).read_bytes() == (llama.path / f).read_bytes() for f in unpacked if not f.endswith(".sqlite")
    )
    session = OpenRun.open(out).obtain()
    (answer,) = session.ask(["How many berths has the Amber Pier?"], session.arm("lora"))
    first = OpenRun.open(llama.path).obtain()
    assert answer.text == first.ask(["How many berths has the Amber Pier?"], first.arm("lora"))[0].text
    with pytest.raises(UsageProblem, match="exists"):
        unbundle(archive, out)
    unbundle(archive, out, overwrite=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x").write_text("x", "utf-8")
    with pytest.raises(UsageProblem, match="not a run folder"):
        unbundle(archive, tmp_path / "mine", overwrite=True)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_overwrite_replaces_only_runs_that_are_not_being_written(archive: Path, tmp_path: Path) -> None:
    """A folder with a plan and no run is kept, and so is a run that is being written."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "plan.yaml").write_text("name: mine\n", "utf-8")
    with pytest.raises(UsageProblem, match="not a run folder"):
        unbundle(archive, project, overwrite=True)
    assert [p.name for p in project.iterdir()] == ["plan.yaml"]
    out = Path(unbundle(archive, tmp_path / "out").out)
    (out / "mine.txt").write_text("x", "utf-8")
    with open_run_folder(out).writing(), pytest.raises(BadInput, match="written by another process"):
        unbundle(archive, out, overwrite=True)
    assert (out / "mine.txt").is_file()
    unbundle(archive, out, overwrite=True)
    assert not (out / "mine.txt").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "project"]


def test_bundle_of_an_equal_run_has_equal_bytes(archive: Path, llama: Any, tmp_path: Path) -> None:
    again = export(llama.path, ExportRequest("bundle", out=tmp_path / "again"))
    assert (Path(again.out) / "harbour.zip").read_bytes() == archive.read_bytes()


def _unknown_file(members: Members, listed: dict[str, Any]) -> None:
    members[f"{RUN_PREFIX}notes.txt"] = b"x"


def _renamed_plan(name: str) -> Callable[[Members, dict[str, Any]], None]:
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


def _changed_with_list(members: Members, listed: dict[str, Any]) -> None:
    """Change a file and its hash in the list; the run's own manifest still differs."""
    data = members[f"{RUN_PREFIX}report.md"] + b"# better\n"
    members[f"{RUN_PREFIX}report.md"] = data
    listed["files"]["report.md"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _newer(members: Members, listed: dict[str, Any]) -> None:
    listed["schema"] = 2


def _newer_layout(members: Members, listed: dict[str, Any]) -> None:
    listed |= {"schema": 7, "runs": listed.pop("run"), "files": []}


def _schema_zero(members: Members, listed: dict[str, Any]) -> None:
    listed["schema"] = 0


def _file_and_folder(members: Members, listed: dict[str, Any]) -> None:
    """Use one name for a file and a folder."""
    members[f"{RUN_PREFIX}plan.yaml/more"] = b"x"
    listed["files"]["plan.yaml/more"] = {"bytes": 1, "sha256": hashlib.sha256(b"x").hexdigest()}


def _unsafe_run_name(members: Members, listed: dict[str, Any]) -> None:
    listed["run"] = "../elsewhere"


def _outside_run_prefix(members: Members, listed: dict[str, Any]) -> None:
    members["setup.py"] = b"x"


UNSAFE_PATHS = (
    "../plan.yaml",
    "/plan.yaml",
    "a/../../plan.yaml",
    "..\\plan.yaml",
    "C:plan.yaml",
    ".hidden/plan.yaml",
    "a//plan.yaml",
)
TAMPERED = (
    (_unknown_file, "not in its bundle.json"),
    (_shorter, "bytes, not"),
    (_changed, "differs from its list"),
    (_missing, "plan.yaml is missing"),
    (_huge, "bytes, not"),
    (_newer, "schema 2"),
    (_changed_with_list, "the run in {file} is damaged: report.md has"),
    (_newer_layout, "newer tunewise: tunewise-bundle of schema 7"),
    (_schema_zero, "its schema is 0"),
    (_file_and_folder, "plan.yaml/more' cannot be written"),
    (_renamed_plan("n" * 300), "cannot be written"),
    (_unsafe_run_name, "malformed"),
    (_outside_run_prefix, "no plain file"),
    *((_renamed_plan(name), "no plain file") for name in UNSAFE_PATHS),
)


@pytest.mark.parametrize(("change", "message"), TAMPERED)
def test_tampered_archive_is_refused_and_leaves_nothing(
    rewrite: Callable[..., Path], tmp_path: Path, change: Callable[..., None], message: str
) -> None:
    file = rewrite(change)
    with pytest.raises(BadInput) as refused:
        unbundle(file, tmp_path / "out")
    assert message.format(file=file) in refused.value.message
    assert refused.value.exit_code == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["changed.zip"]


def test_links_duplicates_and_zip_bombs_are_refused(
    rewrite: Callable[..., Path], archive: Path, tmp_path: Path
) -> None:
    def link(target: zipfile.ZipFile) -> None:
        info = zipfile.ZipInfo(f"{RUN_PREFIX}report.json")
        info.external_attr = 0o120777 << 16
        target.writestr(info, "/etc/passwd")

    with pytest.raises(BadInput, match="no plain file"):
        unbundle(rewrite(lambda m, _: m.pop(f"{RUN_PREFIX}report.json"), link), tmp_path / "out")

    def duplicate(target: zipfile.ZipFile) -> None:
        target.writestr(f"{RUN_PREFIX}PLAN.yaml", b"x")

    def list_both(members: Members, listed: dict[str, Any]) -> None:
        listed["files"]["PLAN.yaml"] = {"bytes": 1, "sha256": "0" * 64}

    with pytest.raises(BadInput, match="in it twice"):
        unbundle(rewrite(list_both, duplicate), tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr(LIST, b" " * (65 << 20))
    with pytest.raises(BadInput, match="bytes"):
        unbundle(tmp_path / "bomb.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("cut", [0, 1, 1000, -1, -30])
def test_truncated_archive_is_refused(archive: Path, tmp_path: Path, cut: int) -> None:
    data = archive.read_bytes()
    (tmp_path / "cut.zip").write_bytes(data[: cut if cut >= 0 else len(data) + cut])
    with pytest.raises(BadInput):
        unbundle(tmp_path / "cut.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_flipped_bytes_are_detected(archive: Path, tmp_path: Path) -> None:
    """An archive with a flipped byte is refused, unless the byte matters to no file of the run."""
    data, refused = archive.read_bytes(), 0
    for offset in range(40, len(data), len(data) // 12):
        (tmp_path / "flipped.zip").write_bytes(data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :])
        try:
            unbundle(tmp_path / "flipped.zip", tmp_path / f"out{offset}")
        except BadInput:
            refused += 1
    assert refused >= 10


@pytest.mark.parametrize("compression", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, zipfile.ZIP_DEFLATED])
def test_damage_is_reported_for_every_compression(tmp_path: Path, compression: int) -> None:
    file = tmp_path / "packed.zip"
    with zipfile.ZipFile(file, "w", compression) as target:
        target.writestr(LIST, json.dumps({"kind": "tunewise-bundle", "schema": 1, "run": "a", "files": {}}))
    data = bytearray(file.read_bytes())
    begin = 30 + len(LIST) + 4
    data[begin : begin + 12] = b"\xff" * 12
    file.write_bytes(data)
    with pytest.raises(BadInput, match="damaged"):
        unbundle(file, tmp_path / "out")


def test_unbundle_accepts_the_export_folder_and_refuses_other_paths(
    archive: Path, llama: Any, tmp_path: Path
) -> None:
    assert unbundle(archive.parent, tmp_path / "out").checked["run"] == "harbour"
    with pytest.raises(BadInput, match="is a run folder already") as refused:
        unbundle(llama.path, tmp_path / "again")
    assert "--to bundle" in refused.value.hint
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="is a folder with 0 archives"):
        unbundle(tmp_path / "empty", tmp_path / "again")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadInput, match="no plain file"):
        unbundle(tmp_path / "pipe", tmp_path / "again")


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder that every user may write into."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


def test_read_only_run_is_bundled(archive: Path, llama: Any, shared_folder: Path) -> None:
    shutil.copytree(llama.path, shared_folder / "run")
    folders = [path for path in (shared_folder / "run").rglob("*") if path.is_dir()]
    for folder in (shared_folder / "run", *folders):
        folder.chmod(0o555)
    child = os.fork()
    if child == 0:  # another user than root, who ignores modes
        code = 1
        try:
            if os.geteuid() == 0:
                os.setuid(65534)
            export(shared_folder / "run", ExportRequest("bundle", out=shared_folder / "out"))
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert (shared_folder / "out" / "harbour.zip").read_bytes() == archive.read_bytes()
    for folder in (shared_folder / "run", *folders):
        folder.chmod(0o755)


def test_unfinished_run_or_run_with_a_link_is_not_bundled(llama: Any, tmp_path: Path) -> None:
    shutil.copytree(llama.path, tmp_path / "run")
    (tmp_path / "run" / "manifest.json").unlink()
    with pytest.raises(BadInput, match="was not finished"):
        export(tmp_path / "run", ExportRequest("bundle", out=tmp_path / "out"))
    shutil.copytree(llama.path, tmp_path / "linked")
    (tmp_path / "linked" / "index" / "extra").symlink_to("/etc/passwd")
    with pytest.raises(BadInput, match="link"):
        export(tmp_path / "linked", ExportRequest("bundle", out=tmp_path / "out"))


def test_damaged_index_is_not_exported(llama: Any, tmp_path: Path) -> None:
    shutil.copytree(llama.path, tmp_path / "run")
    vectors = next((tmp_path / "run" / "index").rglob("vectors.faiss"))
    vectors.write_bytes(vectors.read_bytes()[:-1] + b"\x01")
    for to in ("bundle", "index"):
        with pytest.raises(BadInput, match="damaged"):
            export(tmp_path / "run", ExportRequest(to, out=tmp_path / to))


def test_unbundle_names_the_endpoints_of_the_plan(tmp_path: Path) -> None:
    """Asking such a run sends questions there, so each host is confirmed first."""
    model = {"name": "openai:theirs@https://models.example:8443/v1"}
    body = {
        "name": "far",
        "choice": "prompting",
        "model": model,
        "judge": {"name": "openai:judge@http://10.0.0.1/v1"},
        "data": {"questions": "q.jsonl"},
        "weights": {"token_f1": 1},
        "steps": [{"kind": "evaluate", "arm": "prompting"}],
    }
    run = RunFolder.create(tmp_path / "far", parse_plan(body))
    run.seal({})
    result = export(run.path, ExportRequest("bundle", out=tmp_path / "bundle"))
    (tmp_path / "back").mkdir()
    notes = unbundle(result.out, tmp_path / "back").notes
    assert [note.split(":")[0] for note in notes] == [
        "its plan asks theirs at models.example",
        "its plan asks judge at 10.0.0.1",
    ]
    assert all("once you allow it" in note for note in notes)
    plan = read_run_plan(tmp_path / "back")
    assert plan.judge is not None
    for named in (plan.model, plan.judge):
        remote = parse_remote(named.name)
        assert remote is not None
        context = opened_run(plan, RunFolder(tmp_path / "back"), remote)
        with pytest.raises(BadInput, match="came from a bundle"):
            context.models.connect_endpoint(remote, named)
        allow_endpoints(tmp_path / "back", [endpoint_host(remote.url)])
        context.models.connect_endpoint(remote, named).close()


def test_file_that_is_no_bundle_is_refused(tmp_path: Path, llama: Any) -> None:
    with pytest.raises(BadInput, match="there is no file"):
        unbundle(tmp_path / "nowhere.zip")
    (tmp_path / "text.zip").write_text("hello", "utf-8")
    with pytest.raises(BadInput, match="is no bundle"):
        unbundle(tmp_path / "text.zip")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as other:
        other.writestr("a.txt", "x")
    with pytest.raises(BadInput, match=r"it has no bundle\.json"):
        unbundle(tmp_path / "other.zip")
