"""Tokens, training time, rental, calls, hosting."""
