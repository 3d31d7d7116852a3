"""Reports: what came out of inference, in a form to read."""

from ppl.report.summary import Row, Summary, summary

__all__ = ["Row", "Summary", "summary"]
