"""The settings that decide an index; they are stored in it and every update uses them again."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from rag.errors import BadInput
from rag.stores.base import AUTO, OLDER_STORES, is_store, unknown_store

_LEFT_OUT_UNSET = (
    *("truncate_dim", "query_prompt", "document_prompt"),
    *("large_chunks", "added_share", "most_removed", "unit_chars", "max_unindexed", "max_fragments"),
)
"""Settings that indexes record only where they are set."""
_OF_BEFORE: dict[str, Any] = {"weigh_by_rarity": False, "question_adapter": False}
"""How indexes of 0.2.0 are searched, which do not record these settings."""


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """How documents are cut into chunks, and how dense and lexical search are fused."""

    max_tokens: int = 200
    """Longest chunk in the embedder's tokens. 200 with a quarter overlap gave the best evidence recall at
    equal prompt length on 472 public questions (recall@1600 .937 against .850 for 800 tokens)."""
    overlap: float = 0.25
    """Share of a chunk that the next one repeats, where a block must be split."""
    fusion: str = "convex"
    """convex (min-max scores, weighted) or rrf (reciprocal ranks)."""
    lexical_weight: float = 0.3
    """Weight of BM25 in the sum. Of 0 to 1, .3 is within .002 of the best hit@1 on 1,078 questions over short
    documents (.905, without BM25 .882, by RRF .820) and within .005 of the best span recall on 373 questions
    over long ones (.953, without BM25 .886); see benchmarks/LOG.md."""
    pool: int = 50
    """Candidates taken from each side before they are fused."""
    k1: float = 1.2
    """BM25's term saturation; Robertson and Zaragoza (2009) give 1.2 to 2."""
    b: float = 0.75
    """BM25's length normalisation; Robertson and Zaragoza (2009) give .75."""
    store: str = "flat"
    """The vector store: a name in ``rag.stores.base.STORES``, that of a plug-in, or auto, which measures and chooses."""
    truncate_dim: int | None = None
    """Dimensions kept of a vector, which is then scaled to length 1 again (Matryoshka embeddings); None takes the
    setting of the embedder's folder."""
    query_prompt: str | None = None
    """Put before questions; None takes the prompt of the embedder's folder, or one known for the model's name."""
    document_prompt: str | None = None
    """Put before passages; None as above."""
    large_chunks: int = 20_000
    """Chunks from which an index folder is large: updates are written beside the base, hashes of big files are kept, and
    chunks are read when a search needs them."""
    added_share: float = 0.05
    """Most rows that updates write beside the base of a large index, as a share of it: they are searched exactly, and
    every update writes all of them."""
    most_removed: int = 1000
    """Most rows of such a base that updates leave out: so many more results are asked of it in every search."""
    max_unindexed: int = 2_000
    """Most rows, beyond a fiftieth of all, that an index in LanceDB searches one by one before they are added to its own
    indexes."""
    max_fragments: int = 64
    """Most files of rows that updates of an index in LanceDB leave before they are joined, and after how many updates the
    files of old generations are deleted."""
    unit_chars: int = 300_000
    """Characters of the texts that are embedded and stored together, which is what a killed build embeds again. 300,000
    are about 70,000 tokens, three to five seconds of work on two cores, with enough texts of equal length for full
    batches."""

    weigh_by_rarity: bool = True
    """Whether the weight of BM25 depends on how rare the words are that match
    (:func:`rag.search.searcher.weight_of_matches`). Indexes of 0.2.0 keep a constant weight."""
    question_adapter: bool = True
    """Whether questions are embedded with the adapter that comes with the package, where the embedder is all-MiniLM
    (:mod:`rag.embedding.low_rank`). Indexes of 0.2.0 do without."""

    def __post_init__(self) -> None:
        """Refuse values outside their range, naming the setting."""
        bounds: dict[str, tuple[float, float]] = {
            "max_tokens": (16, 100_000),
            "overlap": (0, 0.9),
            "lexical_weight": (0, 1),
            "pool": (1, 10_000),
            "k1": (0, 10),
            "b": (0, 1),
            "large_chunks": (1, 10**9),
            "added_share": (0, 100),
            "most_removed": (0, 10**9),
            "max_unindexed": (0, 10**9),
            "max_fragments": (1, 10**6),
            "unit_chars": (1, 10**9),
        }
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
                raise BadInput(f"the index setting {name} is {value!r}, but must be {low:g} to {high:g}")
        if self.fusion not in ("convex", "rrf"):
            raise BadInput(f"the index setting fusion is {self.fusion!r}, but must be convex or rrf")
        if self.truncate_dim is not None and (isinstance(self.truncate_dim, bool) or self.truncate_dim < 1):
            raise BadInput(f"the index setting truncate_dim is {self.truncate_dim!r}, but must be 1 or more")
        if self.store != AUTO and not is_store(self.store):
            raise unknown_store(self.store, AUTO)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as a JSON object; those of the embedder and of large indexes only where they are set."""
        unset = {field.name: field.default for field in fields(self) if field.name in _LEFT_OUT_UNSET}
        return {key: value for key, value in asdict(self).items() if key not in unset or value != unset[key]}

    @classmethod
    def from_json(cls, obj: dict[str, Any]) -> IndexSettings:
        """Return the settings of a JSON object; BadInput for an unknown key."""
        if unknown := sorted(set(obj) - {field.name for field in fields(cls)}):
            raise BadInput(f"unknown index setting {unknown[0]!r}")
        store = OLDER_STORES.get(str(obj.get("store")))
        return cls(**{**_OF_BEFORE, **obj, **({"store": store} if store else {})})
