"""One self-contained HTML page a run: what was run, what it is worth, and what the vectors look like."""

from selfsup.report.page import write_report
from selfsup.report.sample import save_sample, save_views

__all__ = ["save_sample", "save_views", "write_report"]
