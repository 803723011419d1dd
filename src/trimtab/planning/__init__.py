"""Cost models and advice, in plain arithmetic: no torch, and nothing here imports what it predicts."""
