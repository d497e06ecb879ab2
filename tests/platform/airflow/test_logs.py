from hypothesis import given
from hypothesis import strategies as st

from pinloom.airflow.logs import LogFollower, failure_text


@given(st.lists(st.text("ab \n\r|", max_size=12), max_size=8))
def test_every_line_is_emitted_once_in_order_however_the_log_grows(pieces):
    grown = ["".join(pieces[: n + 1]) for n in range(len(pieces))]
    lines: list[str] = []
    text = ""
    follower = LogFollower(lambda: text, lines.append)
    for text in grown:  # noqa: B007 (read by the follower)
        follower._next_read = 0.0
        follower.follow()
    follower.finish()
    assert lines == [line.rstrip() for line in "".join(pieces).splitlines() if line.strip()]


def test_a_large_log_is_not_read_all_the_time(monkeypatch):
    now = 0.0
    reads = []

    def read() -> str:
        nonlocal now
        now += 1.0
        reads.append(now)
        return "line\n" * len(reads)

    monkeypatch.setattr("time.monotonic", lambda: now)
    follower = LogFollower(read, lambda line: None)
    while now < 100:
        follower.follow()
        now += 0.1
    assert len(reads) <= 11


def test_the_users_error_is_told_with_its_remedy_and_without_what_came_before():
    log = "2017 INFO pinloom: started\nTraceback of a library\npinloom: no column 'x' in a.csv\n  remedy: one of a, b\n"
    assert failure_text(log) == "no column 'x' in a.csv\n  remedy: one of a, b"
    assert failure_text("pinloom: no\n") == "no"


def test_a_bug_is_told_by_the_end_of_its_log():
    log = "\n".join(f"line {n}" for n in range(100))
    assert failure_text(log).splitlines() == [f"line {n}" for n in range(80, 100)]
