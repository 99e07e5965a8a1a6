"""What `tunewise serve` answers over HTTP: the OpenAI-compatible endpoint of one run, and its page."""
