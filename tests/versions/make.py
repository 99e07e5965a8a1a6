"""Write the files of today's formats, small and as text, so that later versions can show that they still open them.

python tests/versions/make.py FOLDER    (once for each new number; what lies in tests/versions stays for good)
"""

from __future__ import annotations

import base64
import json
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BINARY = (".npy", ".safetensors", ".faiss")
PLAN: dict[str, Any] = {
    "name": "piers", "choice": "prompting", "model": {"name": "openai:none@http://127.0.0.1:9/v1"},
    "data": {"questions": "questions.jsonl"}, "max_new_tokens": 8,
    "steps": [{"kind": "evaluate", "arm": "prompting"}, {"kind": "evaluate", "arm": "prompting-again"}],
    "weights": {"token_f1": 1},
    "answers": {"must_cite": {"value": True, "source": "asked"}},
}  # fmt: skip


class Letters:
    """An embedder that counts letters: one token per word, and the same for ever."""

    name, fingerprint, dimension, max_tokens = "letters", "letters-1", 26, 60

    def __init__(self) -> None:
        """Make the tokenizer: every word is one token."""
        from tokenizers import Tokenizer, models, pre_tokenizers

        self.tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
        self.tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()

    def count_tokens(self, text: str) -> int:
        """Return the number of words."""
        return len(self.tokenizer.encode(text).ids)

    def encode(self, texts: Sequence[str], *, query: bool = False, on_event: Any = None) -> Any:
        """Return one unit row per text."""
        import numpy as np

        rows = np.array([[1e-3 + text.lower().count(chr(97 + n)) for n in range(26)] for text in texts])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def main(folder: Path) -> None:
    """Write all fixtures into a new folder."""
    work = folder / "work"
    (work / "documents").mkdir(parents=True)
    for n, name in enumerate(("Amber", "Birch", "Copper")):
        text = f"# {name} Pier\n\nThe {name} Pier has {n + 3} berths for visitors.\n"
        (work / "documents" / f"{name.lower()}.md").write_text(text, "utf-8")
    write_index(work / "documents", folder / "index")
    write_run(work, folder / "run")
    write_adapter(folder / "adapter")
    for path in sorted(work.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    work.rmdir()


def write_index(documents: Path, out: Path) -> None:
    """Build an index; its text store is kept as SQL, its arrays in base64."""
    from rag.index import Index
    from rag.settings import IndexSettings

    Index.build(out, documents, Letters(), IndexSettings(store="exact"))
    database = out / "text.sqlite"
    with sqlite3.connect(database) as db:
        number = db.execute("pragma user_version").fetchone()[0]
        sql = "\n".join([*db.iterdump(), f"pragma user_version = {number};"]) + "\n"
    for path in out.glob("text.sqlite*"):
        path.unlink()
    (out / "text.sqlite.sql").write_text(sql, "utf-8")
    keep_as_text(out, ("CURRENT", "gen-", "text"))


def write_run(work: Path, out: Path) -> None:
    """Write a run folder with two scored arms, sealed; no model was asked."""
    from rag.durable import write_json, write_text
    from runners.plan import parse_plan
    from runners.rundir import RunFolder

    plan = parse_plan(PLAN)
    run = RunFolder.create(out, plan)
    run.write({"event": "run.start", "plan": plan.digest(), "gpu": ""})
    run.finish("evaluate:prompting", {"n": 2}, {"answers": 2})
    arms = {
        name: {
            q: {"token_f1": f1, "combined": f1, "seconds": 0.1, "prompt_tokens": 9, "completion_tokens": 3}
            for q, f1 in scores.items()
        }
        for name, scores in {
            "prompting": {"q1": 0.5, "q2": 1.0},
            "prompting-again": {"q1": 0.5, "q2": 0.5},
        }.items()
    }
    write_json(out / "trial" / "scores.json", {"schema": 1, "arms": arms, "documents": {}, "seeds": {}})
    write_text(
        out / "trial" / "answers.jsonl", json.dumps({"arm": "prompting", "id": "q1", "answer": "Aye."}) + "\n"
    )
    verdict = {"outcome": "undecided", "strength": "leaning", "recommended": "prompting", "winner": "prompting",
               "model": "none", "text": "too few questions", "gate_met": None}  # fmt: skip
    score = {"mean": 0.75, "low": 0.5, "high": 1.0}
    write_json(out / "report.json", {"schema": 1, "name": "piers", "verdict": verdict, "warnings": [], "guards": {},
               "arms": [{"arm": "prompting", "score": score, "scores": {}, "n": 2, "seconds_per_answer": 0.1}],
               "paired": [], "weights": {"token_f1": 1}})  # fmt: skip
    run.seal({"plan": plan.digest(), "outcome": "undecided"})


def write_adapter(out: Path) -> None:
    """Write a folder of tuned weights: one tensor, its manifest."""
    import numpy as np
    from safetensors.numpy import save_file

    from rag.durable import write_json, write_manifest
    from runners.fingerprint import template_hash, tokenizer_hash

    out.mkdir(parents=True)
    write_json(out / "adapter_config.json", {"peft_type": "LORA", "r": 1, "base_model_name_or_path": "none"})
    save_file(
        {"base_model.model.w.lora_A.weight": np.ones((1, 2), np.float32)}, out / "adapter_model.safetensors"
    )
    Letters().tokenizer.save(str(out / "tokenizer.json"))
    base = {"name": "none", "source": "path", "revision": "", "fingerprint": "0" * 64,
            "tokenizer_sha256": tokenizer_hash(out), "template_sha256": template_hash(out)}  # fmt: skip
    write_manifest(
        out, "adapter", {"base": base, "config": {"method": "lora", "variant": "lora"}, "data": {"rows": 8}}
    )
    keep_as_text(out)


def keep_as_text(folder: Path, begins: tuple[str, ...] = ("",)) -> None:
    """Replace arrays by their base64, and leave out what does not belong to the format (caches, locks)."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        if not path.relative_to(folder).parts[0].startswith(begins):
            path.unlink()
        elif path.suffix in BINARY:
            lines = base64.encodebytes(path.read_bytes()).decode("ascii")
            path.with_name(path.name + ".b64").write_text(lines, "ascii")
            path.unlink()
    for path in sorted((p for p in folder.rglob("*") if p.is_dir()), reverse=True):
        if not any(path.iterdir()):
            path.rmdir()


def restore(kept: Path, folder: Path) -> Path:
    """Lay a fixture out as the program wrote it, in a new folder; return it."""
    for path in sorted(p for p in kept.rglob("*") if p.is_file()):
        to = folder / path.relative_to(kept)
        to.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".b64":
            to.with_suffix("").write_bytes(base64.decodebytes(path.read_bytes()))
        elif path.suffix == ".sql":
            with sqlite3.connect(to.with_suffix("")) as db:
                db.executescript(path.read_text("utf-8"))
        else:
            to.write_bytes(path.read_bytes())
    return folder


if __name__ == "__main__":
    main(Path(sys.argv[1]))
