"""Judges: which of two replies is better, how good one is, and how far such an answer can be trusted."""
