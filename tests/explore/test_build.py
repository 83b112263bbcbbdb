"""The page that is committed is what its sources give."""

import subprocess
import sys
from pathlib import Path

EXPLORE = Path(__file__).parents[2] / "src" / "crossentropy" / "explore"


def test_page_is_what_make_page_builds(tmp_path):
    done = subprocess.run(
        [sys.executable, EXPLORE / "build.py", tmp_path / "page.html"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    same = (tmp_path / "page.html").read_bytes() == (EXPLORE / "page.html").read_bytes()
    assert same, "the sources have changed: make page"


def test_lock_file_names_no_registry():
    assert "http" not in (EXPLORE / "package-lock.json").read_text()
