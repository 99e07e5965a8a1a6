"""Methods: what each serves, what blocks it, its cost, the steps it needs; ``registry.py`` lists them."""
