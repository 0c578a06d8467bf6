"""The report of a run, as text for a bug report and as JSON for programs."""
