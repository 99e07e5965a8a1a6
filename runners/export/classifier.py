"""The `classifier` export: a classifier arm's weights, labels and n-grams, for any program with numpy and scikit-learn.

A tuned embedder lies beside the head, as a folder of sentence-transformers that loads without tunewise.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rag.errors import BadInput
from rag.files import check_manifest, sha256_file
from runners.arms.classifier import CLASSIFIER_FOLDER
from runners.classification.files import EMBEDDER, FACTS, KIND, VOCABULARY, WEIGHTS
from runners.classification.selection import TUNED_FEATURES
from runners.classification.text_features import CHARACTER_NGRAMS, WORD_NGRAMS, WORD_PATTERN
from runners.export.card import short_model_name
from runners.export.job import ExportedFiles, ExportJob, require_disk_space
from runners.export.source import ExportSource

_USAGE = """```python
import json
from pathlib import Path
import numpy as np
from safetensors.numpy import load_file

texts = ["a text to be given a label"]
facts, arrays = json.loads(Path("head.json").read_text("utf-8")), load_file("head.safetensors")
{columns}scores = np.asarray(columns @ arrays["weights"].T + arrays["bias"])
labels = [facts["labels"][n] for n in scores.argmax(axis=1)]
```
"""
_TFIDF = f"""from scipy.sparse import hstack
from sklearn.feature_extraction.text import TfidfVectorizer

vocabulary = json.loads(Path("vocabulary.json").read_text("utf-8"))["vocabulary"]
ways = {{
    "words": dict(ngram_range={WORD_NGRAMS}, token_pattern=r"{WORD_PATTERN}"),
    "characters": dict(analyzer="char_wb", ngram_range={CHARACTER_NGRAMS}),
}}
parts = []
for kind, terms in vocabulary.items():
    reader = TfidfVectorizer(sublinear_tf=True, vocabulary=terms, **ways[kind])
    reader.idf_ = arrays["inverse_frequencies." + kind]
    parts.append(reader.transform(texts) / len(vocabulary) ** 0.5)
"""
_EMBEDDINGS = """from sentence_transformers import SentenceTransformer

vectors = SentenceTransformer(EMBEDDER).encode_document(texts, normalize_embeddings=True)  # {embedder}
"""
_TUNED = """from sentence_transformers import SentenceTransformer

# The embedder that was tuned on the labels; texts beyond what it reads at once are cut here, and averaged by tunewise.
columns = SentenceTransformer("{folder}").encode_document(texts, normalize_embeddings=True)
"""
_COLUMNS = {
    **dict.fromkeys(TUNED_FEATURES, _TUNED.replace("{folder}", EMBEDDER)),
    "embeddings": _EMBEDDINGS + "columns = vectors\n",
    "tfidf": _TFIDF + 'columns = hstack(parts, format="csr")\n',
    "both": _TFIDF
    + _EMBEDDINGS
    + 'columns = hstack([*parts, facts["embedding_weight"] * vectors], format="csr")\n',
}


def make_classifier(job: ExportJob) -> ExportedFiles:
    """Copy a classifier's files and read them back; raise `BadInput` for an arm that is none, or a damaged one."""
    from safetensors.numpy import load_file

    source = job.source
    folder = _classifier_folder(source)
    parts = [folder / name for name in (WEIGHTS, FACTS, VOCABULARY)] + sorted((folder / EMBEDDER).rglob("*"))
    names = [path.relative_to(folder).as_posix() for path in parts if path.is_file()]
    require_disk_space(job.out, sum((folder / name).stat().st_size for name in names))
    for name in names:
        (job.folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / name, job.folder / name)
    facts = json.loads((job.folder / FACTS).read_text("utf-8"))
    arrays = load_file(str(job.folder / WEIGHTS))
    if any(sha256_file(job.folder / name) != sha256_file(folder / name) for name in names):
        raise BadInput(f"{job.out} was not written as it was read", "check the disk, then export again")
    tuned = facts.get("features") in TUNED_FEATURES
    return ExportedFiles(
        usage=usage_of(facts, short_model_name(source.plan.embedder.name)),
        checked={
            "labels": len(facts["labels"]),
            "numbers read back and equal": sum(array.size for array in arrays.values()),
        },
        kind=KIND,
        made_from={
            "examples": f"{facts['rows']:,}",
            "held-out accuracy" if tuned else "cross-validated accuracy": "unknown"
            if facts["accuracy"] is None
            else f"{facts['accuracy']:.3f}",
        },
    )


def usage_of(facts: Mapping[str, Any], embedder: str) -> str:
    """Return the lines that answer with a classifier outside of tunewise, in Markdown.

    Args:
        facts: what its head.json holds.
        embedder: the name of the embedder.
    """
    columns = _COLUMNS[facts.get("features", "embeddings")].replace("{embedder}", embedder)
    usage = _USAGE.replace("{columns}", columns)
    if not facts.get("temperature"):
        return usage
    return f'{usage}\nThe softmax of `scores / facts["temperature"]` has the calibrated probabilities.\n'


def _classifier_folder(source: ExportSource) -> Path:
    """Return the folder of the selected arm's classifier, checked against its manifest."""
    assert source.arm is not None
    if not source.arm.classifier:
        known = [step.arm for step in source.plan.arms if step.classifier]
        hint = (
            f"take one: --arm {' or '.join(known)}" if known else "the plan has none: add an arm `classifier`"
        )
        if source.arm.nearest_reply or source.arm.route:
            hint = f"{source.arm.arm} is packed with all of the run: --to bundle; or {hint}"
        raise BadInput(f"the arm {source.arm.arm} is no classifier", hint)
    folder = source.run.path / CLASSIFIER_FOLDER / source.arm.arm
    check_manifest(folder, KIND)
    return folder
