"""Groundup: from raw text to an aligned, evaluated model that talks."""

__version__ = "0.1.0"
