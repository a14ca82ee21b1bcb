"""The report of a study: one HTML file that explains the whole study to someone who was not there."""

from hpsearch.watch.report.final import FinalRun
from hpsearch.watch.report.page import Asked, report_page

__all__ = ["Asked", "FinalRun", "report_page"]
