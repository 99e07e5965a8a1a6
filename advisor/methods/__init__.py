"""Methods: what each serves, what blocks it, what it costs, which steps it needs. ``table.py`` lists them."""
