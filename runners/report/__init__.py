"""The report of a run: its records, and report.json written and read."""
