"""Retrieval metrics, bootstrap and tests, index tuning, synthetic questions."""
