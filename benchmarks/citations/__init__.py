"""Statements with their passages, written by others than the authors of the rules that judge them."""
