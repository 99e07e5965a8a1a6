"""A training in several processes: how they share it, the wrapped model, and the share of each in a step."""
