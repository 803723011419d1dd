"""Trimtab: turns a large model into a fast, small, proven, secured service."""

__version__ = "0.1.0"
