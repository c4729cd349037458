"""The report: one HTML file that opens offline, from the files of one or several sweeps."""

from sweep.report.page import write_report

__all__ = ["write_report"]
