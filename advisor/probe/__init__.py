"""Asking the base model what it knows, and the answers that settles."""
