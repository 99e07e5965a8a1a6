"""Everything checked before training, and the device probe in its own process."""
