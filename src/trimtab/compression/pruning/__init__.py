"""Structured pruning of decoders: what to remove, how the rest makes up for it, and the cut itself."""
