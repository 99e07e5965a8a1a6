"""Sentences as statements are compared: words of one meaning, clauses, negation, qualifiers, pronouns, rows of tables."""
