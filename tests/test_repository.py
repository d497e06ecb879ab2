"""Rules of the house that a reader cannot see in any one file."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_platform_folder_does_not_shadow_the_standard_library():
    assert not (ROOT / "platform" / "__init__.py").exists()
    code = "import platform, uuid; print(platform.python_implementation())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == sys.implementation.name.replace("cpython", "CPython")
