"""Report data, HTML, charts, Markdown, run comparison, decision record."""
