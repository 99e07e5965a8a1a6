"""`tunewise index build --engine ray`: flags that do not go together, and a build without the extra."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from advisor.cli import main
from advisor.flags.index import ClusterFlags
from advisor.workflows.index_cluster import check_cluster, embedding_device
from rag.errors import BadInput, UsageProblem


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (ClusterFlags(engine="slurm"), "there is no engine 'slurm'"),
        (ClusterFlags(actors=2), "--actors is a flag of --engine ray"),
        (ClusterFlags(shards="s3://bucket/shards"), "--shards is a flag of --engine ray"),
        (ClusterFlags(engine="ray", actor_cpus=0.0), "--actor-cpus is 0, but must be above 0"),
        (ClusterFlags(engine="ray", actor_gpus=-1.0), "--actor-gpus is -1, but must be above 0"),
        (ClusterFlags(engine="ray", actor_gpus=float("nan")), "--actor-gpus is nan, but must be above 0"),
    ],
)
def test_flags_that_do_not_go_together(flags: ClusterFlags, message: str) -> None:
    with pytest.raises(UsageProblem, match=message):
        check_cluster(flags, "documents")


def test_documents_behind_a_url() -> None:
    with pytest.raises(UsageProblem, match="documents behind a URL are read by --engine ray only"):
        check_cluster(ClusterFlags(), "s3://bucket/documents")
    check_cluster(ClusterFlags(engine="ray"), "s3://bucket/documents")
    with pytest.raises(BadInput, match="URLs of ftp"):
        check_cluster(ClusterFlags(engine="ray"), "ftp://host/documents")


def test_device_follows_the_flags() -> None:
    flags = [ClusterFlags(), ClusterFlags(engine="ray"), ClusterFlags(engine="ray", actor_gpus=0.5)]
    assert [embedding_device(given) for given in flags] == [None, "cpu", "cuda"]


def test_command_without_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is found missing before the embedder is looked for, and nothing is left behind."""
    (tmp_path / "a.md").write_text("# A\n\nText.\n")
    monkeypatch.setitem(sys.modules, "ray", None)
    index = tmp_path / "index"
    arguments = ["index", "build", str(index), "--documents", str(tmp_path / "a.md"), "--engine", "ray"]
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--embedder", "no-such-embedder"])
    assert stopped.value.code == 4
    assert capsys.readouterr().err.splitlines() == [
        "tunewise: --engine ray needs the extra `ray`",
        '  next: pip install "tunewise[ray]" (from a checkout: pip install ".[ray]")',
    ]
    assert not index.exists()
