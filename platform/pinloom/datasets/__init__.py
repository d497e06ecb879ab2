"""Data sets: one YAML each, plus at most one small reader. The only code that knows a data set."""

from pinloom.datasets.spec import DatasetSpec, load_dataset

__all__ = ["DatasetSpec", "load_dataset"]
