"""What a report says in words."""

import pytest

from pinloom.reporting.prose import relative


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        (0.12, 0.1, "+20.0 %"),
        (0.05, 0.1, "−50.0 %"),
        (0.105, 0.000048, "+0.105 (absolute)"),
        (0.105, 0.0, "+0.105 (absolute)"),
        (0.0, 0.0, "–"),
        (0.0, 0.1, "−100.0 %"),
    ],
)
def test_a_share_of_next_to_nothing_is_no_percentage(ours, theirs, said):
    assert relative(ours, theirs) == said
