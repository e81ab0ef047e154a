"""One self-contained HTML page a run, and one a contest: what was run, what it is worth, and what the vectors look like."""

from selfsup.report.contest import write_contest
from selfsup.report.page import write_report
from selfsup.report.sample import Abilities, save_abilities, save_sample, save_views

__all__ = ["Abilities", "save_abilities", "save_sample", "save_views", "write_contest", "write_report"]
