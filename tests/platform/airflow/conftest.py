import threading
from collections.abc import Iterator

import pytest

from tests.platform.airflow.jobs_api import JobsApi


@pytest.fixture
def api() -> Iterator[JobsApi]:
    server = JobsApi()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()
