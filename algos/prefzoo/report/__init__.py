"""The report: sections, tables, figures."""
