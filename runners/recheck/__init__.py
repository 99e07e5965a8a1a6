"""A finished run measured again after something changed: only what the change touches is asked again."""
