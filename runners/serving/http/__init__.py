"""The HTTP server of one run: an OpenAI-compatible endpoint and a web page. Needs the `serve` extra."""
