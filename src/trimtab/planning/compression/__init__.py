"""`plan compress`: which compression can meet a service level on an engine."""
