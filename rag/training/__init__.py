"""Training of an embedder and a reranker on questions and their gold passages, and the comparison with the ones before."""
