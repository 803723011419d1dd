"""Figures of a run as it goes: what is measured each step, and where it is written."""
