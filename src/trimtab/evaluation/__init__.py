"""Quality of a build against a reference: token statistics per file, n-gram yardsticks, sane generation."""
