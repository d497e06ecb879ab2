"""What `evaluate` and `promote` share: rows of a split, scores of an artifact with its own vectors, decisions."""
