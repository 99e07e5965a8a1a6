"""The batching worker between requests and models."""
