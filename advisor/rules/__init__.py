"""Rules: what an answer speaks for, each with a weight and evidence; ``registry.py`` lists them."""
