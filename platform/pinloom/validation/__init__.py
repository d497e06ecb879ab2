"""The gate between what landed and what is published: suites in code, judged by Great Expectations.

`rules` says what every row must satisfy, `judge` asks Great Expectations, `quarantine` parts good from bad, `drift`
compares days, `verdict` judges tables as a whole, `layout` writes what is published, `gate` puts them together.
"""

import logging
import os

# Great Expectations decides on telemetry and writes hundreds of log lines while it is imported.
os.environ.setdefault("GX_ANALYTICS_ENABLED", "False")
logging.getLogger("great_expectations").setLevel(logging.WARNING)
