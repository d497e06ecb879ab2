"""The Complete Journey: a year of purchases by 2,469 households (anonymised, possibly perturbed retail data; CC0)."""
