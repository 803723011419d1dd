"""Makes a model smaller and keeps what it knows: structured pruning, closed-form refit, and their pipeline."""
