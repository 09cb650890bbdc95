"""Formats in, one sealed manifest, views out."""
