"""Exports: a run's result as files for other tools, each read back before the export is complete."""
