"""Rules of the house that a reader cannot see in any one file."""

import ast
import re
import subprocess
import sys
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).parents[1]
CODE = [p for d in ("components", "platform/pinloom", "dags", "feature_repo") for p in (ROOT / d).rglob("*.py")]
DOCS = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]


def test_platform_folder_does_not_shadow_the_standard_library():
    assert not (ROOT / "platform" / "__init__.py").exists()
    code = "import platform, uuid; print(platform.python_implementation())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == sys.implementation.name.replace("cpython", "CPython")


def test_files_stay_small_enough_to_read():
    too_long = {str(p.relative_to(ROOT)): n for p in CODE if (n := len(p.read_text().splitlines())) > 400}
    assert not too_long


def test_nine_of_ten_functions_are_under_45_lines():
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = chain.from_iterable(ast.walk(ast.parse(p.read_text())) for p in CODE)
    lengths = sorted((n.end_lineno or 0) - n.lineno + 1 for n in nodes if isinstance(n, functions))
    assert lengths[int(0.9 * len(lengths))] < 45


def test_links_between_documents_lead_somewhere():
    broken = []
    for page in DOCS:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if not target.startswith(("http://", "https://")) and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)} → {target}")
    assert not broken


def test_outside_datasets_no_code_names_an_action_or_column_of_one_data_set():
    words = re.compile(r"\b(buy_discounted|buy_coupon|household_id|basket_id|long_view|mailer_location)\b")
    named = [str(p.relative_to(ROOT)) for p in CODE if "datasets" not in p.parts and words.search(p.read_text())]
    assert not named
