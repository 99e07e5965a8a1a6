"""Rules: what in a situation speaks for which need. ``table.py`` is the table of contents."""
