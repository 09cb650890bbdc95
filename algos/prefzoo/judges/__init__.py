"""Judges, constitutions, critique and revision."""
