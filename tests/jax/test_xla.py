"""The interface to XLA."""

import os
import subprocess
from pathlib import Path

import jax

ROOT = Path(__file__).parents[2]


def test_structs_are_laid_out_as_jaxs_header_says():
    include = [f"-I{ROOT / 'src' / 'bindings'}", f"-I{jax.ffi.include_dir()}"]
    source = ROOT / "tests" / "core" / "xla_abi.cpp"
    subprocess.run([os.environ.get("CXX", "g++"), "-std=c++17", "-fsyntax-only", *include, source], check=True)
