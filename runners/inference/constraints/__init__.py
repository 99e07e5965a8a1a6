"""Answers held to a form while they are generated: what it is, how a grammar is made of it, and the rows held to it."""
