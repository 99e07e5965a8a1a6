"""Hand a run's result on: as files that other tools load, each read back before it counts as made."""
