"""Build the wheel and the sdist, install them in clean environments, and check every extra with and without its packages.

python scripts/check_packages.py [--extra NAME]...  exit 1 when anything is wrong, with a line for each problem

The base install gets an environment of its own. Each extra gets another one, which sees the packages of the base through a
.pth file, so that an extra costs only the download of what it adds: what it does not declare, and the base does not bring,
is not there. The command that a user is told to type (``pip install "tunewise[NAME]"``) is the one that is run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
LEFT_OUT = {"test": "the README's test command installs and uses it"}
"""Extras that are not installed here, and why."""
OFFICE = """
import io, sys, zipfile
from rag.loading.base import Skipped
from rag.loading.reader import parse_file
W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
MAIN = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
RELATION = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"
PACKAGE = "http://schemas.openxmlformats.org/package/2006"
RELATIONS = "application/vnd.openxmlformats-package.relationships+xml"
parts = {
    "[Content_Types].xml": f'''<Types xmlns="{PACKAGE}/content-types">
        <Default Extension="rels" ContentType="{RELATIONS}"/>
        <Override PartName="/word/document.xml" ContentType="{MAIN}"/></Types>''',
    "_rels/.rels": f'''<Relationships xmlns="{PACKAGE}/relationships">
        <Relationship Id="rId1" Type="{RELATION}" Target="word/document.xml"/></Relationships>''',
    "word/document.xml": f'''<w:document xmlns:w="{W}"><w:body><w:p><w:r>
        <w:t>The desk opens at nine.</w:t></w:r></w:p></w:body></w:document>''',
}
with zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
    for name, text in parts.items():
        archive.writestr(name, text)
(read,) = parse_file("a.docx", file.getvalue())
print(read.reason if isinstance(read, Skipped) else repr(read), file=sys.stderr)
sys.exit(4 if isinstance(read, Skipped) else "opens at nine" not in repr(read))
"""


@dataclass(frozen=True)
class ExtraCheck:
    """What shows that an extra is needed, and that its packages suffice.

    Attributes:
        command: arguments of ``tunewise``, or of the interpreter where the first is ``-c``. Without the packages of the
            extra it ends with exit code 4 and the line that installs them.
        code: the exit code of the same command with the extra.
        imports: modules that are imported with the extra.
    """

    command: tuple[str, ...]
    code: int
    imports: tuple[str, ...]


def _tracker(name: str) -> ExtraCheck:
    """The examples are not there, which is found after the tracker's packages are."""
    command = ("train", "--examples", "nowhere.jsonl", "--out", "out", "--track", name)
    return ExtraCheck(command, 3, (name,))


DESK = (
    "--documents",
    "desk/documents",
    "--examples",
    "desk/examples.jsonl",
    "--questions",
    "desk/questions.jsonl",
)
CHECKS = {
    "retriever": ExtraCheck(
        ("plan", *DESK, "--tune-retriever", "--yes", "--out", "tuned.yaml"),
        0,
        ("datasets", "rag.training.trainer"),
    ),
    "serve": ExtraCheck(("serve", "nowhere"), 3, ("runners.serving.http.app", "uvicorn")),
    "office": ExtraCheck(("-c", OFFICE), 0, ("docx", "pptx", "openpyxl")),
    "lancedb": ExtraCheck(("index", "check", "lancedb://{here}/lance"), 3, ("rag.backends.lance.backend",)),
    "pgvector": ExtraCheck(
        ("index", "check", "postgresql://127.0.0.1:1/none"), 4, ("rag.backends.postgresql.backend",)
    ),
    "ray": ExtraCheck(
        ("index", "build", "ray", "--documents", "a.md", "--engine", "ray", "--embedder", "none"),
        3,
        ("ray.data",),
    ),
    "s3": ExtraCheck(("export", "s3://127.0.0.1/none", "--to", "run"), 4, ("s3fs", "rag.object_storage")),
    "mcp": ExtraCheck(("mcp", "--tools"), 0, ("mcp",)),
    "mlflow": _tracker("mlflow"),
    "tensorboard": _tracker("tensorboard"),
    "trackio": _tracker("trackio"),
    "wandb": _tracker("wandb"),
}
"""The command of each extra; one that no command needs has only its modules in IMPORTS."""
IMPORTS = {"docs": ("sphinx", "myst_parser", "furo")}


def extra_packages(extra: str) -> list[str]:
    """Return what an extra adds to the base; nothing for one that is part of it and kept for commands of before."""
    lines: list[str] = PROJECT["optional-dependencies"][extra]
    return lines


class Report:
    """The problems found, and the time of each step."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.problems: list[str] = []
        self._since = (0.0, 0.0)

    def start(self) -> None:
        """Begin a step."""
        times = os.times()
        self._since = (time.monotonic(), times.children_user + times.children_system)

    def end(self, step: str) -> None:
        """Print how long the step took, and the processor time of what it started."""
        times = os.times()
        seconds, work = (
            time.monotonic() - self._since[0],
            times.children_user + times.children_system - self._since[1],
        )
        print(f"{step}: {seconds:.0f} s, {work:.0f} s of processor time", flush=True)

    def expect(self, holds: bool, problem: str) -> None:
        """Keep and print a problem unless the expectation holds."""
        if not holds:
            self.problems.append(problem)
            print(f"  WRONG: {problem}", flush=True)


def call(*command: str | Path, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command with nothing of this checkout or user in its environment; RuntimeError when it fails and may not."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "TUNEWISE_", "AWS_"))
    }
    kept |= {"HOME": str(cwd), "XDG_CACHE_HOME": str(cwd / "cache"), "AWS_EC2_METADATA_DISABLED": "true"}
    kept |= {
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
    }
    kept |= {"WANDB_MODE": "offline", "HF_HUB_OFFLINE": "1", "NO_COLOR": "1", "COLUMNS": "100"}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=kept, capture_output=True, text=True, check=False,
        stdin=subprocess.DEVNULL, timeout=900,
    )  # fmt: skip
    if check and done.returncode:
        raise RuntimeError(
            f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        )
    return done


def scripts_folder(environment: Path) -> Path:
    """Return the folder of an environment's commands."""
    return environment / ("Scripts" if os.name == "nt" else "bin")


def wheel_content(wheel: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()}


def build(work: Path, report: Report) -> Path:
    """Build wheel and sdist, check that the sdist builds the same wheel, and return the wheel."""
    dist, again = work / "dist", work / "again"
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps")
    call(*pip, "--wheel-dir", dist, ROOT, cwd=work)
    call(sys.executable, "-m", "build", "--sdist", "--outdir", dist, ROOT, cwd=work)
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    call(*pip, "--wheel-dir", again, sdist, cwd=work)
    (second,) = again.glob("*.whl")
    report.expect(
        wheel_content(wheel) == wheel_content(second), "the sdist's wheel is not that of the checkout"
    )
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "SECURITY.md", "CITATION.cff"}
    wanted |= {"tests/conftest.py", "docs/conf.py", "scripts/docs.py", "benchmarks/LOG.md", ".ci/run"}
    report.expect(wanted <= names, f"the sdist lacks {sorted(wanted - names)}")
    print(
        f"  {wheel.name} {wheel.stat().st_size / 1e6:.1f} MB, {sdist.name} {sdist.stat().st_size / 1e6:.1f} MB"
    )
    return wheel


def check_base(work: Path, wheel: Path, report: Report) -> Path:
    """Install the wheel without extras and use it; return the folder of its commands."""
    call(sys.executable, "-m", "venv", work / "base", cwd=work)
    commands = scripts_folder(work / "base")
    call(commands / "pip", "install", "--quiet", "--no-compile", wheel, cwd=work)
    tunewise = commands / "tunewise"
    version = call(tunewise, "--version", cwd=work).stdout
    report.expect(version == f"tunewise {PROJECT['version']}\n", f"--version prints {version!r}")
    report.expect("plan" in call(tunewise, "--help", cwd=work).stdout, "--help does not name plan")
    tops = sorted(
        {name.split("/")[0].removesuffix(".py") for name in wheel_content(wheel) if ".dist-info/" not in name}
    )
    call(commands / "python", "-P", "-c", f"import {', '.join(tops)}", cwd=work)
    call(commands / "pip", "check", cwd=work)
    call(tunewise, "demo", "--copy", "desk", cwd=work)
    advice = call(tunewise, "plan", *DESK, "--yes", "--out", "plan.yaml", "--json", cwd=work).stdout
    report.expect(bool(json.loads(advice)["choice"]), "plan --json names no choice")
    report.expect((work / "plan.yaml").is_file(), "plan wrote no file")
    (work / "lance").mkdir()
    (work / "a.md").write_text("# Hours\n\nThe desk opens at nine.\n", "utf-8")
    return commands


def checked_command(check: ExtraCheck, commands: Path, work: Path) -> tuple[int, str]:
    """Run an extra's command in an environment; return its exit code and what it printed for people."""
    parts = [
        part if check.command[0] == "-c" else part.replace("{here}", work.as_posix())
        for part in check.command
    ]
    start = () if check.command[0] == "-c" else ("-m", "tunewise")
    done = call(commands / "python", "-P", *start, *parts, cwd=work, check=False)
    return done.returncode, done.stderr


def check_extra(extra: str, work: Path, base: Path, report: Report) -> None:
    """Check one extra without its packages, then install it and check again."""
    line = f'pip install "{PROJECT["name"]}[{extra}]"'
    check = CHECKS.get(extra)
    if check and not extra_packages(extra):
        code, text = checked_command(check, base, work)
        report.expect(
            code == check.code, f"{extra}, part of the base: exit {code}, not {check.code}: {text[-300:]}"
        )
        imported = call(
            base / "python", "-P", "-c", f"import {', '.join(check.imports)}", cwd=work, check=False
        )
        report.expect(not imported.returncode, f"{extra}, part of the base: {imported.stderr[-500:]}")
        return
    if check:
        code, text = checked_command(check, base, work)
        report.expect(
            code == 4 and line in text, f"without {extra}: exit {code}, not 4 with {line}: {text[-300:]}"
        )
    else:
        print(f"  {extra}: no command of tunewise needs it, only its modules are imported")
    environment = work / f"with-{extra}"
    call(sys.executable, "-m", "venv", "--without-pip", environment, cwd=work)
    commands = scripts_folder(environment)
    paths = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own, theirs = (
        Path(call(each / "python", "-c", paths, cwd=work).stdout.strip()) for each in (commands, base)
    )
    (own / "base.pth").write_text(f"{theirs}\n", "utf-8")
    pip = (
        base / "python",
        "-m",
        "pip",
        "--python",
        commands / "python",
        "install",
        "--quiet",
        "--no-compile",
    )
    installed = call(*pip, f"{PROJECT['name']}[{extra}]", cwd=work, check=False)
    report.expect(not installed.returncode, f"{extra} cannot be installed: {installed.stderr[-500:]}")
    if installed.returncode:
        return
    modules = check.imports if check else IMPORTS[extra]
    imported = call(commands / "python", "-P", "-c", f"import {', '.join(modules)}", cwd=work, check=False)
    report.expect(not imported.returncode, f"with {extra}: {imported.stderr[-500:]}")
    if check:
        (commands / "tunewise").write_text(
            f"#!{commands / 'python'}\nfrom advisor.cli import main\nmain()\n", "utf-8"
        )
        (commands / "tunewise").chmod(0o755)
        code, text = checked_command(check, commands, work)
        report.expect(
            code == check.code and line not in text,
            f"with {extra}: exit {code}, not {check.code}: {text[-300:]}",
        )


def main() -> int:
    """Build, install and check; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--extra", action="append", choices=list(PROJECT["optional-dependencies"]), help="only these"
    )
    chosen = parser.parse_args().extra or list(PROJECT["optional-dependencies"])
    report = Report()
    unknown = set(PROJECT["optional-dependencies"]) ^ ({*CHECKS, *IMPORTS, *LEFT_OUT})
    report.expect(
        not unknown, f"extras without a line in CHECKS, or lines without an extra: {sorted(unknown)}"
    )
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder).resolve()
        report.start()
        wheel = build(work, report)
        report.end("wheel and sdist")
        report.start()
        base = check_base(work, wheel, report)
        report.end("without extras")
        for extra in chosen:
            if extra in LEFT_OUT or extra in unknown:
                print(
                    f"{extra}: not installed here, {LEFT_OUT.get(extra, 'it has no line in CHECKS')}",
                    flush=True,
                )
                continue
            report.start()
            check_extra(extra, work, base, report)
            report.end(extra)
    print(f"{len(report.problems)} problems" if report.problems else "all packages are right")
    return int(bool(report.problems))


if __name__ == "__main__":
    sys.exit(main())
