"""Scores of one answer against its gold."""
