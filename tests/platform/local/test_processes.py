import sys
import textwrap

import psutil

from pinloom.local.processes import ProcessTree, stop_all
from tests.airflow_fixtures import until

STUBBORN = textwrap.dedent("""
    import os, signal, subprocess, sys
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"],
                             start_new_session=True)
    child.wait()
""")


def test_stopping_ends_the_process_and_descendants_in_other_sessions_that_ignore_sigterm(tmp_path):
    trees = [
        ProcessTree([sys.executable, "-c", STUBBORN], env={}, log=tmp_path / "stubborn.log"),
        ProcessTree([sys.executable, "-c", "import time; time.sleep(600)"], env={}, log=tmp_path / "meek.log"),
    ]
    until(lambda: "up" in trees[0].tail())
    (child,) = trees[0].descendants()
    stop_all(trees, timeout_s=0.5)
    assert not any(tree.alive for tree in trees)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    stop_all(trees, timeout_s=0.5)


def test_what_a_process_said_last_can_be_read(tmp_path):
    tree = ProcessTree([sys.executable, "-c", "print('no' * 10); exit(3)"], env={}, log=tmp_path / "log")
    until(lambda: not tree.alive)
    assert tree.tail(5) == "nono\n"
