"""Right answers against cost: the picture, the table that can be sorted, and both for two runs."""
