"""This package's version, which is part of what a stage depends on."""

__version__ = "0.4.0"
