"""Whether an answer reads like the house: learnt from pairs of replies to one question, the house's and the model's.

Both replies of a pair speak of the same thing, so what tells them apart is how they say it. No test question is
among them, so nothing is learnt of any arm's answers there. Light; scikit-learn is imported where it learns.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

MOST = 20
"""Questions that the untuned model is asked for this: each costs an answer. On harbor-desk 12 tell as well as 30."""
LEAST = 16
"""Fewer pairs than this show no difference that could be trusted."""
TELLS = 0.75
"""Area under the curve from which on the two are told apart; below it there is no score. Replies of one house against
others of the same house reach it in 4 and 5 of 200 draws of 16 and of 20 pairs (.7: in 15 and 13)."""
FOLDS = 5
_BUCKETS = 2**12


@dataclass(frozen=True, slots=True)
class House:
    """What was learnt; ``score`` is None where the house's replies cannot be told from the model's."""

    auroc: float | None
    """Of pairs that the fit had not seen; None with too few pairs to learn from."""
    pairs: int
    score: Callable[[str], float] | None
    """From an answer to 0 (as the untuned model's usual reply) up to 1 (as the house's usual reply)."""
    text: str

    def to_json(self) -> dict[str, Any]:
        """What the report says of it."""
        rounded = None if self.auroc is None else round(self.auroc, 4)
        return {"auroc": rounded, "pairs": self.pairs, "tells": self.score is not None, "text": self.text}


def learn(house: Sequence[str], model: Sequence[str]) -> House:
    """Learn to tell the house's replies from the model's; the two are pairs, reply by reply, to the same question.

    A logistic regression over hashed character n-grams (2 to 4, digits made equal) and a few numbers of shape. How
    well it tells is measured on pairs left out of the fit, by fifths; the medians of those pairs' log odds are what
    0 and 1 of the score stand for. ValueError when the two are not pairs.
    """
    if len(house) != len(model):
        raise ValueError(f"{len(house)} replies of the house, {len(model)} of the model")
    if len(house) < LEAST:
        told = f"no house-style score: {len(house)} pairs of replies are too few to learn from (at least {LEAST})"
        return House(None, len(house), None, told)
    import numpy as np
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import GroupKFold, cross_val_predict

    texts, count = [*house, *model], len(house)
    is_house = np.repeat([1, 0], count)
    odds = cross_val_predict(
        _pipeline(), texts, is_house, groups=np.tile(np.arange(count), 2), cv=GroupKFold(FOLDS),
        method="decision_function",
    )  # fmt: skip
    auroc = float(roc_auc_score(is_house, odds))
    low, high = float(np.median(odds[count:])), float(np.median(odds[:count]))
    found = f"on {count} pairs of replies that the fit had not seen, its area under the curve is {auroc:.2f}"
    if auroc < TELLS or high <= low:
        return House(auroc, count, None, f"no house-style score: {found}, too little to tell them apart")
    fitted = _pipeline().fit(texts, is_house)

    def score(answer: str) -> float:
        return float(np.clip((fitted.decision_function([answer])[0] - low) / (high - low), 0, 1))

    return House(auroc, count, score, f"house style tells the house from the untuned model: {found}")


def shape(text: str) -> list[float]:
    """A reply's form, each number between 0 and 1: words, sentences, lines, how it ends, marks, capitals, lists.

    The scales are fixed and not fitted: replies of one house may all have the same form, and a fitted scale would
    then take the least difference for a large one.
    """
    words = max(1, len(text.split()))
    ends = text.rstrip()[-1:]
    listed = len(re.findall(r"(?m)^\s*(?:[-*•]|\d+[.)])\s", text))
    return [
        min(1.0, math.log1p(words) / 6), min(1.0, len(re.findall(r"[.!?]+", text)) / 6),
        min(1.0, text.count("\n") / 6), float(ends == "?"), float(ends in (".", "!")),
        min(1.0, 5 * text.count(",") / words), min(1.0, 5 * text.count("!") / words),
        min(1.0, sum(char.isupper() for char in text) / words), min(1.0, listed / 3),
    ]  # fmt: skip


def masked(text: str) -> str:
    """Return the text with every digit as 0: which number a reply gives is no style."""
    return re.sub(r"\d", "0", text)


def _pipeline() -> Any:
    import numpy as np
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline, make_union
    from sklearn.preprocessing import FunctionTransformer

    grams = HashingVectorizer(
        preprocessor=masked, analyzer="char", ngram_range=(2, 4), n_features=_BUCKETS, alternate_sign=False
    )
    form = FunctionTransformer(lambda texts: np.array([shape(text) for text in texts]))
    return make_pipeline(make_union(grams, form), LogisticRegression(C=10.0, max_iter=1000))
