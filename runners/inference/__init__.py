"""Local and remote generation: decoding, KV cache, batching, weights."""
