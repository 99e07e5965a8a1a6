"""An opened run: its models, what it searches, its data, requirements, endpoints it may ask, listing."""
