"""Examples and questions: formats, sampling, duplicates, leakage, personal data."""
