"""The interview on a terminal (uses questionary)."""
