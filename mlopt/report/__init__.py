"""The report: one document model from `run.json`, rendered as HTML and Markdown.
Imports no torch."""
