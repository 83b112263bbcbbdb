import json
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def run_in_node(jobs):
    """What the page's modules return for a list of jobs, [function, ...arguments], in one process."""
    if shutil.which("node") is None:
        pytest.fail("needs node: sudo apt install nodejs npm", pytrace=False)
    text = json.dumps(jobs, allow_nan=False)
    done = subprocess.run(["node", HERE / "run.mjs"], input=text, capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        pytest.fail(done.stderr[-2000:], pytrace=False)
    return json.loads(done.stdout, parse_int=lambda text: int(text) if len(text) < 16 else float(text))


@pytest.fixture(scope="session")
def node():
    return run_in_node
