"""What the pages of the adapters show, run."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


def failed_examples(package):
    """How many examples in the docstrings of a package fail; every public name has some."""
    for name in package.__all__:
        assert ">>> " in getattr(package, name).__doc__, name
    modules = [module.name for module in pkgutil.iter_modules(package.__path__, package.__name__ + ".")]
    return sum(doctest.testmod(importlib.import_module(name)).failed for name in modules)


def run_code(page):
    """The names that the code of a page ends with."""
    names = {}
    for block in re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.S):
        exec(block, names)
    return names


def run_beginning(page, names):
    """Run what a page shows first, on the names that it takes for granted."""
    (block,) = re.findall(r"```py\n(import .*?)```", (DOCS / page).read_text(), re.S)
    exec(block, names)
    return names


def rows_of_migration(page, number=1):
    """The two expressions of each row of one of a page's tables, by default its first."""
    table = (DOCS / page).read_text().split("|---|---|\n")[number].split("\n\n")[0]
    return [tuple(re.findall(r"`(.+?)`", line)) for line in table.splitlines()]
