"""The report of a run: one HTML file that stands alone, made from a verdict and training curves."""

from trimtab.optimization.report.page import render, write_report

__all__ = ["render", "write_report"]
