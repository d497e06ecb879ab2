"""A user's actions as columns, and what is derived from them as of a time."""
