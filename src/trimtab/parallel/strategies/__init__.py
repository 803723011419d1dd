"""How a model is laid out over ranks: one file a strategy, and what they share."""
