"""Classifiers of texts: features, linear heads, the choice among them by cross-validation, and their files."""
