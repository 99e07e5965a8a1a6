"""Questions, layered answers, profile, what is counted in files."""
