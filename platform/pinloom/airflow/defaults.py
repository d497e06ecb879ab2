"""What all the DAGs have in common."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import Any

from airflow.sdk import Param

from pinloom.settings import get_settings

_settings = get_settings().airflow

TASK: dict[str, Any] = {"retries": _settings.retries, "retry_delay": timedelta(seconds=_settings.retry_delay_s)}
START = datetime.combine(_settings.log_start, time.min, UTC)
END = datetime.combine(_settings.log_end, time.min, UTC) if _settings.log_end else None
DATASET = Param("", type="string", description="data set or path of a YAML; empty: the setting")
