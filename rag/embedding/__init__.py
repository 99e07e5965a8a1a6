"""The embedder, the reranker, their protocols, and detection of languages that an embedder does not know."""
