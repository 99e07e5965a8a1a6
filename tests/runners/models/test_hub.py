"""Copies in the model hub's cache count only when every file is there and whole; a download that was cut goes on."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from rag.errors import BadInput
from runners.models import completeness, hub, resolve
from runners.models.resolve import Model
from runners.resources.model_shape import read_shape

REPO, COMMIT = "owner/four-shards", "0123456789abcdef0123456789abcdef01234567"
SHARD = "model-0000{}-of-00004.safetensors"


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory, tiny: Model) -> Path:
    """A tiny model whose weights are in four files with an index."""
    from transformers import AutoModelForCausalLM

    folder = shutil.copytree(tiny.folder, tmp_path_factory.mktemp("sharded") / "model")
    net = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    total = sum(p.numel() * p.element_size() for p in net.parameters())
    for part in range(2, 40):
        shutil.rmtree(folder / "parts", ignore_errors=True)
        net.save_pretrained(folder / "parts", max_shard_size=total // part)
        if len(list((folder / "parts").glob("*.safetensors"))) == 4:
            break
    for path in (folder / "parts").glob("model*"):
        path.rename(folder / path.name)
    shutil.rmtree(folder / "parts")
    assert sorted(p.name for p in folder.glob("*.safetensors")) == [SHARD.format(n) for n in range(1, 5)]
    return folder


class _Hub(ThreadingHTTPServer):
    """The three requests of the hub that a download makes; ``cut`` names files whose connection breaks half way."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _HubHandler)
        self.folder = folder
        self.cut: set[str] = set()
        self.sent: list[str] = []


class _HubHandler(BaseHTTPRequestHandler):
    server: _Hub

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith(f"/api/models/{REPO}/tree/"):
            files = [p for p in sorted(self.server.folder.iterdir()) if p.is_file()]
            rows = [
                {"type": "file", "path": p.name, "size": p.stat().st_size, "oid": _digest(p)[:40]}
                for p in files
            ]
            return self.reply(json.dumps(rows).encode())
        if path.startswith(f"/api/models/{REPO}"):
            body = {"id": REPO, "modelId": REPO, "sha": COMMIT, "private": False, "tags": [], "downloads": 0}
            return self.reply(json.dumps(body).encode())
        file = self.server.folder / path.rpartition("/")[2]
        if not file.is_file():
            self.send_error(404)
            return None
        data = file.read_bytes()
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{_digest(file)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if self.command == "GET":
            self.server.sent.append(file.name)
            cut = file.name in self.server.cut
            self.wfile.write(data[start : start + (len(data) - start) // 2] if cut else data[start:])
            if cut:
                self.close_connection = True
        return None

    def reply(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def hub_server(sharded: Path) -> Iterator[_Hub]:
    """A hub on this machine that has the sharded model."""
    server = _Hub(sharded)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def resolve_in_child(home: Path, endpoint: str, allow: bool) -> str:
    """Resolve the model in a process of its own, and return the fingerprint or the error."""
    code = (
        "from runners.models.resolve import resolve_model\nfrom rag.errors import Problem\n"
        f"try: print('OK', resolve_model('{REPO}').fingerprint)\n"
        "except Problem as p: print(p.exit_code, p)"
    )
    env = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS_"))}
    env |= {
        "HF_HOME": str(home),
        "HF_ENDPOINT": endpoint,
        "HF_HUB_DISABLE_XET": "1",
        "TUNEWISE_CACHE": str(home / "c"),
    }
    env |= {"TUNEWISE_ALLOW_HUB": "1"} if allow else {"HF_HUB_OFFLINE": "1", "TUNEWISE_ALLOW_HUB": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


def run_in_child(home: Path, endpoint: str, *words: str) -> tuple[int, str]:
    """Run a verb in a process of its own without the hub's variables; return its exit code and all that it printed."""
    env = {
        k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS_", "TUNEWISE_ALLOW"))
    }
    env |= {"HF_HOME": str(home / "hf"), "HF_ENDPOINT": endpoint, "TUNEWISE_CACHE": str(home / "c")}
    done = subprocess.run(
        [sys.executable, "-m", "tunewise", *words],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        cwd=home,
    )
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def test_only_the_config_of_an_unknown_model_is_fetched_where_the_hub_is_allowed(
    hub_server: _Hub, tmp_path: Path
) -> None:
    """Without it the size stays unknown; with it config.json alone comes, is kept, and is no download cut off."""
    endpoint = f"http://127.0.0.1:{hub_server.server_port}"
    hub_server.folder = tmp_path / "published"
    hub_server.folder.mkdir()
    config = {
        **{"model_type": "qwen3_moe", "num_hidden_layers": 8, "hidden_size": 1024, "num_attention_heads": 16},
        **{"num_experts": 32, "num_experts_per_tok": 4, "moe_intermediate_size": 512, "vocab_size": 32000},
    }
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (hub_server.folder / name).write_text(json.dumps(config), "utf-8")
    estimate = ("estimate", "--method", "prompting", "--model", REPO, "--gpu", "RTX 4090")
    code, said = run_in_child(tmp_path, endpoint, *estimate)
    assert (code, hub_server.sent) == (3, [])
    assert f"the shape of '{REPO}' is not known here" in said
    assert "--allow-hub" in said
    plan = ("plan", "--yes", "--model", REPO, "--set", "labelled_examples=500", "--json")
    code, said = run_in_child(tmp_path, endpoint, *plan)
    assert (code, hub_server.sent) == (0, [])
    assert f"the size of {REPO} is not known here" in said
    code, said = run_in_child(tmp_path, endpoint, *estimate, "--allow-hub", "--json")
    assert (code, hub_server.sent) == (0, ["config.json"]), said
    weights = 2 * read_shape(config).params / 2**30
    assert json.loads(said)["memory_gib"]["terms"]["weights"] == pytest.approx(weights, abs=1e-3)
    code, said = run_in_child(tmp_path, "http://127.0.0.1:9", *plan)
    assert code == 0
    assert "is not known here" not in said, "the kept config is read without the hub"
    assert not (tmp_path / "hf" / "hub" / "models--owner--four-shards").exists()


def test_a_hub_that_does_not_answer_leaves_the_size_unknown(tmp_path: Path) -> None:
    code, said = run_in_child(
        tmp_path, "http://127.0.0.1:9", "plan", "--yes", "--allow-hub", "--model", "owner/elsewhere", "--json"
    )
    assert code == 0, said
    assert "the hub did not deliver the config.json of owner/elsewhere" in said
    assert "the size of owner/elsewhere is not known here" in said


def test_cut_download_is_incomplete_and_goes_on(sharded: Path, hub_server: _Hub, tmp_path: Path) -> None:
    endpoint = f"http://127.0.0.1:{hub_server.server_port}"
    hub_server.cut = {SHARD.format(n) for n in (2, 3, 4)}
    cut = resolve_in_child(tmp_path, endpoint, allow=True)
    assert cut.startswith(f"4 the hub did not deliver {REPO}"), cut
    offline = resolve_in_child(tmp_path, endpoint, allow=False)
    assert offline.startswith(f"4 the download of '{REPO}' in the hub's cache is incomplete"), offline
    for n in (2, 3, 4):
        assert SHARD.format(n) in offline
    assert SHARD.format(1) not in offline
    hub_server.cut = set()
    hub_server.sent.clear()
    whole = resolve_in_child(tmp_path, endpoint, allow=True)
    assert whole == f"OK {resolve.resolve_model(str(sharded)).fingerprint}"
    assert SHARD.format(1) not in hub_server.sent, "what is there is not fetched again"
    assert resolve_in_child(tmp_path, endpoint, allow=False) == whole


def make_cached(sharded: Path, home: Path) -> Path:
    """Copy the model into a hub cache as an earlier program left it, without the hub's list of files."""
    storage = home / "hub" / "models--owner--four-shards"
    snapshot = shutil.copytree(sharded, storage / "snapshots" / COMMIT)
    (storage / "refs").mkdir()
    (storage / "refs" / "main").write_text(COMMIT, "utf-8")
    return snapshot


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ("shard", SHARD.format(3)),
        ("truncated", f"{SHARD.format(2)} ("),
        ("dangling", SHARD.format(4)),
        ("tokenizer", "tokenizer.json"),
        ("config", "config.json"),
        ("index", "model.safetensors.index.json"),
    ],
)
def test_partial_copy_is_refused_offline_with_names(
    sharded: Path, tmp_path: Path, damage: str, named: str
) -> None:
    snapshot = make_cached(sharded, tmp_path)
    if damage == "truncated":
        file = snapshot / SHARD.format(2)
        file.write_bytes(file.read_bytes()[:-100])
    elif damage == "dangling":
        (snapshot / SHARD.format(4)).unlink()
        (snapshot / SHARD.format(4)).symlink_to(tmp_path / "blobs" / "gone")
    else:
        names = {"shard": SHARD.format(3), "index": "model.safetensors.index.json"}
        (snapshot / names.get(damage, f"{damage}.json")).unlink()
    said = resolve_in_child(tmp_path, "http://127.0.0.1:9", allow=False)
    assert said.startswith("4 the download of"), said
    assert named in said
    assert "to fetch the rest" in said


def test_truncated_file_of_a_copy_is_fetched_again(sharded: Path, hub_server: _Hub, tmp_path: Path) -> None:
    endpoint = f"http://127.0.0.1:{hub_server.server_port}"
    whole = resolve_in_child(tmp_path, endpoint, allow=True)
    (blob,) = [p for p in tmp_path.rglob(SHARD.format(2)) if p.is_symlink()]
    real = blob.resolve()
    real.write_bytes(real.read_bytes()[:-64])
    assert f"{SHARD.format(2)} (" in resolve_in_child(tmp_path, endpoint, allow=False)
    assert resolve_in_child(tmp_path, endpoint, allow=True) == whole


def test_folder_with_missing_shard_is_refused(sharded: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(sharded, tmp_path / "copy")
    (copy / SHARD.format(2)).unlink()
    with pytest.raises(BadInput, match=rf"is incomplete: {SHARD.format(2)} is missing or cut off"):
        resolve.resolve_model(str(copy))
    (copy / SHARD.format(3)).unlink()
    with pytest.raises(BadInput, match="are missing or cut off"):
        resolve.resolve_model(str(copy))
    (copy / "model.safetensors.index.json").unlink()
    with pytest.raises(BadInput, match=r"index\.json, model-00002-of-00004\.safetensors, model-00003"):
        resolve.resolve_model(str(copy))


def test_index_that_names_other_files_is_refused(sharded: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(sharded, tmp_path / "copy")
    index = copy / "model.safetensors.index.json"
    body = json.loads(index.read_text("utf-8"))
    moved = next(name for name, file in body["weight_map"].items() if file == SHARD.format(1))
    index.write_text(json.dumps({"weight_map": body["weight_map"] | {moved: SHARD.format(2)}}), "utf-8")
    assert completeness.incomplete_files(copy) == (f"{SHARD.format(2)} (without the tensor {moved})",)
    index.write_text(json.dumps({"weight_map": {"x": "../elsewhere.safetensors"}}), "utf-8")
    with pytest.raises(BadInput, match="not a file of its folder"):
        resolve.resolve_model(str(copy))
    index.write_text("{", "utf-8")
    with pytest.raises(BadInput, match="is not JSON"):
        resolve.resolve_model(str(copy))


def test_truncated_single_file_is_refused(tiny: Model, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny.folder, tmp_path / "copy")
    file = copy / "model.safetensors"
    size = file.stat().st_size
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(
        BadInput, match=rf"model\.safetensors \({size - 10:,} of {size:,} bytes\) is missing or cut"
    ):
        resolve.resolve_model(str(copy))


def test_module_files_are_needed(tmp_path: Path) -> None:
    folder = tmp_path / "embedder"
    folder.mkdir()
    modules = [
        ("Transformer", ""),
        ("Pooling", "1_Pooling"),
        ("Dense", "2_Dense"),
        ("Normalize", "3_Normalize"),
    ]
    rows = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for kind, path in modules]
    (folder / "modules.json").write_text(json.dumps(rows), "utf-8")
    assert completeness.incomplete_files(folder) == (
        "1_Pooling/config.json",
        "2_Dense/config.json",
        "2_Dense/model.safetensors",
    )


def test_embedder_with_all_files_in_module_folders_is_complete(tmp_path: Path) -> None:
    """As a StaticEmbedding is saved: nothing but settings at the top."""
    folder = tmp_path / "static"
    module = folder / "0_StaticEmbedding"
    module.mkdir(parents=True)
    kind = "sentence_transformers.models.StaticEmbedding"
    (folder / "modules.json").write_text(
        json.dumps([{"idx": 0, "name": "0", "path": module.name, "type": kind}]), "utf-8"
    )
    save_file({"embedding.weight": np.zeros((4, 2), np.float32)}, module / "model.safetensors")
    assert hub.snapshot_problems(folder, "owner/static") == ("tokenizer.json",)
    (module / "tokenizer.json").write_text("{}", "utf-8")
    assert hub.snapshot_problems(folder, "owner/static") == ()


def test_damaged_blob_is_refused(sharded: Path, tmp_path: Path) -> None:
    """The hub's cache names large files by their SHA-256: bytes changed on the disk are found."""
    snapshot = make_cached(sharded, tmp_path)
    blobs = snapshot.parent.parent / "blobs"
    blobs.mkdir()
    for file in snapshot.glob("*.safetensors"):
        blob = blobs / _digest(file)
        file.rename(blob)
        file.symlink_to(blob)
    assert resolve_in_child(tmp_path, "http://127.0.0.1:9", allow=False).startswith("OK ")
    damaged = (snapshot / SHARD.format(2)).resolve()
    data = bytearray(damaged.read_bytes())
    data[-3] ^= 1
    damaged.write_bytes(data)
    said = resolve_in_child(tmp_path, "http://127.0.0.1:9", allow=False)
    assert said.startswith("3 "), said
    assert f"{SHARD.format(2)} is damaged: its SHA-256" in said
