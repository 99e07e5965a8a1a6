"""Loaders: from files to documents with exact positions. ``registry.py`` lists the formats."""
