"""Methods: what each serves, what blocks it, what it costs, which steps it needs; ``registry.py`` lists them."""
