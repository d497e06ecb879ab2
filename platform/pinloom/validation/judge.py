"""Great Expectations as the judge: an ephemeral context per run, pandas batches, Data Docs in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import great_expectations as gx
import great_expectations.expectations as gxe
import numpy as np
import pandas as pd
import polars as pl
from great_expectations.core import RunIdentifier
from great_expectations.data_context.types.base import (
    DataContextConfig,
    InMemoryStoreBackendDefaults,
    ProgressBarsConfig,
)
from great_expectations.data_context.types.resource_identifiers import (
    ExpectationSuiteIdentifier,
    ValidationResultIdentifier,
)
from numpy.typing import NDArray

from pinloom.validation.rules import Rule

RESULT_FORMAT = {
    "result_format": "COMPLETE",
    "return_unexpected_index_query": False,
    "partial_unexpected_count": 10,
}
SOURCE = "lake"
Rows = NDArray[np.intp]


class Judge:
    """Runs suites over batches and remembers what Data Docs need; not safe for threads (a context is global in GX)."""

    def __init__(self, now: datetime, docs: Path) -> None:
        """Args: now: moment of the run, shown in Data Docs. docs: folder that they are written to."""
        self.now = now
        self.context = gx.get_context(mode="ephemeral", project_config=_config(docs))
        self.source = self.context.data_sources.add_pandas(SOURCE)
        self.definitions: dict[str, gx.ValidationDefinition] = {}

    def failures(self, suite: str, batch: str, frame: pl.DataFrame, rules: Sequence[Rule]) -> dict[str, Rows]:
        """Row numbers of `frame` that fail, by rule name; only rules that some row fails.

        Args:
            suite: name of the suite: the same rules each time.
            batch: name of the batch in Data Docs.
        """
        run = RunIdentifier(run_name=batch, run_time=self.now)
        result = self._definition(suite, rules).run(
            batch_parameters={"dataframe": _as_pandas(frame, rules)}, result_format=RESULT_FORMAT, run_id=run
        )
        by_id = {r.expectation.id: r.name for r in rules}
        failed: dict[str, Rows] = {}
        for outcome in result.results:
            _raise_exception(suite, outcome)
            outcome.result.pop("unexpected_list", None)
            rows = outcome.result.pop("unexpected_index_list", None)
            if rows:
                failed[by_id[outcome.expectation_config.id]] = np.asarray(rows, dtype=np.intp)
        # What is kept for Data Docs must not grow with the number of bad rows: stored again without the lists.
        self.context.validation_results_store.set(_stored_as(suite, run), result)
        return failed

    def write_docs(self) -> None:
        """Build Data Docs of all that was judged: `index.html` and its pages."""
        self.context.build_data_docs()

    def _definition(self, suite: str, rules: Sequence[Rule]) -> gx.ValidationDefinition:
        if suite not in self.definitions:
            batches = self.source.add_dataframe_asset(suite).add_batch_definition_whole_dataframe("batch")
            made = gx.ExpectationSuite(name=suite, expectations=[r.expectation for r in rules])
            self.definitions[suite] = self.context.validation_definitions.add(
                gx.ValidationDefinition(name=suite, data=batches, suite=self.context.suites.add(made))
            )
        return self.definitions[suite]


def _stored_as(suite: str, run: RunIdentifier) -> ValidationResultIdentifier:
    return ValidationResultIdentifier(
        expectation_suite_identifier=ExpectationSuiteIdentifier(suite),
        run_id=run,
        batch_identifier=f"{SOURCE}-{suite}",
    )


def _config(docs: Path) -> DataContextConfig:
    site = {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs)},
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
    }
    return DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(),
        data_docs_sites={"report": site},
        progress_bars=ProgressBarsConfig(globally=False),
        analytics_enabled=False,
    )


def _as_pandas(frame: pl.DataFrame, rules: Sequence[Rule]) -> pd.DataFrame:
    """The columns that rules look at, as small as they can be: Great Expectations hashes and copies what it is given.

    Of a column that is only asked for its nulls, the values do not matter. Strings go over as categories, unless two
    columns are compared: pandas refuses that for categories.
    """
    read = {c for r in rules for c in r.columns if not isinstance(r.expectation, gxe.ExpectColumnValuesToNotBeNull)}
    compared = {c for r in rules if len(r.columns) > 1 for c in r.columns}
    columns = {
        c: pl.col(c) if c in read else pl.when(pl.col(c).is_not_null()).then(pl.lit("given"))
        for r in rules
        for c in r.columns
    }
    texts = pl.selectors.string() - pl.selectors.by_name(compared)
    return frame.select(**columns).with_columns(texts.cast(pl.Categorical)).to_pandas()


def _raise_exception(suite: str, outcome: Any) -> None:
    """An expectation that could not be evaluated judged nothing: never take it for a pass or a fail."""
    info = outcome.exception_info or {}
    problems = [info] if "raised_exception" in info else list(info.values())
    raised = [p for p in problems if p.get("raised_exception")]
    if raised:
        raise RuntimeError(f"suite '{suite}', {outcome.expectation_config.type}: {raised[0].get('exception_message')}")
