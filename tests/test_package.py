"""The package: names, version, configuration, what is said when something is missing."""

import importlib.metadata
import os
import pkgutil
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import crossentropy as ce

ROOT = Path(__file__).parent.parent


def run(script, **environment):
    return subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **environment}, capture_output=True, text=True
    )


def test_all_is_what_is_defined():
    modules = {module.name for module in pkgutil.iter_modules(ce.__path__)}
    defined = {name for name in vars(ce) if not name.startswith("_") and name not in modules}
    assert set(ce.__all__) == defined | {"__version__"}
    assert ce.__all__ == sorted(ce.__all__)


def test_version_comes_from_one_place():
    assert ce.__version__ == importlib.metadata.version("crossentropy")


def test_files_name_the_same_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    newest = re.search("^## (.*)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1]
    assert re.findall(r"\d+\.\d+\.\d+", newest) in ([], [version]), newest


def test_typing_is_installed():
    assert Path(ce.__file__).with_name("py.typed").exists()
    assert "def loss(" in Path(ce._core.__file__).with_name("_core.pyi").read_text()


def test_numpy_is_all_it_imports():
    script = (
        "import sys, numpy; before = set(sys.modules); import crossentropy; "
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    )
    done = run(script)
    assert done.returncode == 0, done.stderr
    imported = set(done.stdout.split())
    assert "crossentropy" in imported
    assert imported <= {"crossentropy", "numpy"} | set(sys.stdlib_module_names)


def test_missing_compiled_module(tmp_path):
    shutil.copytree(Path(ce.__file__).parent, tmp_path / "crossentropy", ignore=shutil.ignore_patterns("*.so"))
    # Without what site-packages start (-S): the finder of an editable install would come first.
    paths = [str(tmp_path), str(Path(np.__file__).parent.parent)]
    script = f"import sys; sys.path[:0] = {paths!r}; import crossentropy"
    done = subprocess.run([sys.executable, "-S", "-c", script], capture_output=True, text=True)
    assert done.returncode == 1
    assert "ImportError: crossentropy's compiled module is missing" in done.stderr
    assert "pip install ." in done.stderr


def test_show_config(capsys, monkeypatch):
    """The versions of frameworks are told where they are installed."""
    versions = {"torch": "1.2"}

    def version(name):
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError
        return versions[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    ce.show_config()
    text = capsys.readouterr().out
    assert f"crossentropy {ce.__version__}" in text
    assert f"\nPython {platform.python_version()}, NumPy {np.__version__}, torch 1.2\n" in text
    assert f"\nsystem: {platform.platform()}\n" in text
    assert re.search(r"\nCPU: \S", text)
    assert "instruction set: " in text
    assert f"threads: {ce.get_num_threads()}" in text


def test_show_config_imports_no_framework():
    done = run("import crossentropy, sys; crossentropy.show_config(); print({'torch', 'jax'} & set(sys.modules))")
    assert done.stdout.endswith("\nset()\n"), done.stderr


def test_instruction_set_is_chosen_by_the_environment():
    done = run("import crossentropy; crossentropy.show_config()", CROSSENTROPY_ISA="baseline")
    assert "instruction set: baseline (available: baseline" in done.stdout
    done = run("import crossentropy", CROSSENTROPY_ISA="mmx")
    assert done.returncode == 1
    assert "CROSSENTROPY_ISA: expected one of baseline" in done.stderr
    assert "got 'mmx'" in done.stderr


def test_threads():
    done = run("import crossentropy; print(crossentropy.get_num_threads())", CROSSENTROPY_NUM_THREADS="3")
    assert done.stdout.strip() == "3"
    done = run("import crossentropy", CROSSENTROPY_NUM_THREADS="many")
    assert "CROSSENTROPY_NUM_THREADS: expected a positive integer, got 'many'" in done.stderr
    before = ce.get_num_threads()
    try:
        ce.set_num_threads(5)
        assert ce.get_num_threads() == 5
        with pytest.raises(ValueError, match="at least 1"):
            ce.set_num_threads(0)
        with pytest.raises(TypeError, match="expected an integer"):
            ce.set_num_threads("two")
    finally:
        ce.set_num_threads(before)


def test_kept_memory():
    script = "import crossentropy; crossentropy.show_config()"
    assert "kept, at most as much as was in use at once (CROSSENTROPY_KEPT_MEMORY" in run(script).stdout
    assert "at most 5000 bytes (" in run(script, CROSSENTROPY_KEPT_MEMORY="5000").stdout
    done = run("import crossentropy", CROSSENTROPY_KEPT_MEMORY="-1")
    assert "CROSSENTROPY_KEPT_MEMORY: expected bytes, 0 or more, got '-1'" in done.stderr
    with pytest.raises(ValueError, match="max_bytes: expected at least 0, got -1"):
        ce.set_kept_memory(-1)
    with pytest.raises(TypeError, match="max_bytes: expected an integer or None"):
        ce.set_kept_memory(1.5)


def test_rounding_mode_of_the_caller_does_not_matter(rng):
    """A caller may have set flush-to-zero or another rounding; the core sets its own and gives the caller's back."""
    script = """
import ctypes, ctypes.util, numpy as np, crossentropy as ce
z = np.random.default_rng(0).standard_normal((50, 40)).astype("f4")
t = np.arange(50) % 40
before = ce.cross_entropy_with_grad(z, t)[1].tobytes()
libm = ctypes.CDLL(ctypes.util.find_library("m"))
assert libm.fesetround({mode}) == 0
after = ce.cross_entropy_with_grad(z, t)[1].tobytes()
assert libm.fegetround() == {mode}
assert libm.fesetround(0) == 0
print(before == after)
"""
    upward = {"x86_64": 0x800, "aarch64": 0x400000, "arm64": 0x400000}.get(os.uname().machine)
    if upward is None:
        pytest.skip("the constant of fesetround is known for x86-64 and ARM only")
    done = run(script.format(mode=upward))
    assert done.stdout.strip() == "True", done.stderr


def test_reference_is_public():
    loss, dlogits = ce.reference.cross_entropy_with_grad([[2.0, 1.0, 0.1]], [0])
    assert loss == pytest.approx(ce.cross_entropy([[2.0, 1.0, 0.1]], [0]), rel=1e-14)
    assert dlogits.dtype == np.float64
