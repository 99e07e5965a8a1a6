"""Loaders: files in, documents with exact positions out. ``registry.py`` is the table of contents."""
