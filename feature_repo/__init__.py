"""The feature store's definitions: what Feast serves, and what ranking rows are made of."""
