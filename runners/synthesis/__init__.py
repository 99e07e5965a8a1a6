"""Rows made from documents: passages are drawn, a teacher asks and replies, and only rows that pass every check are kept."""
