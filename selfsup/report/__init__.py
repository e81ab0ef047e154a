"""One self-contained HTML page a run, and one a contest: what was run, what it is worth, and what the vectors look like."""

from selfsup.report.contest_page import write_contest
from selfsup.report.page_files import Abilities, save_abilities, save_sample, save_views
from selfsup.report.run_page import write_report

__all__ = ["Abilities", "save_abilities", "save_sample", "save_views", "write_contest", "write_report"]
