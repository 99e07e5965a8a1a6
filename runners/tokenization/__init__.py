"""Chat template, loss mask, encoding, token cache."""
