"""What the tests of kept memory share: results, the state of the core's blocks, and the system's view of them."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

import crossentropy as ce
from crossentropy import _core

SHAPE = (9, 1 << 20)
BLOCK = 36 << 20  # bytes of float32 of this shape
LIBC = ctypes.CDLL(None, use_errno=True)
MADV_PAGEOUT, MADV_DONTDUMP = 21, 16


def logits(seed=0, shape=SHAPE):
    few = np.random.default_rng(seed).standard_normal(9973, dtype=np.float32)
    return np.resize(few, shape)


def gradient(z, out=None):
    return ce.cross_entropy_with_grad(z, np.arange(len(z)), out=out)[1]


def address(array):
    return array.ctypes.data


def live():
    return _core.kept_memory()[0]


def kept():
    return _core.kept_memory()[1]


def is_supported():
    """Whether this system lets anything be kept. It does not under a limit of the address space."""
    ce.set_kept_memory(0)
    ce.set_kept_memory(None)
    _core.empty((BLOCK,), np.dtype(np.uint8))
    supported = kept() == BLOCK
    ce.set_kept_memory(0)
    ce.set_kept_memory(None)
    return supported


def mapping(data):
    """What the system tells of a block: kB by name, and the flags of its mapping."""
    # Its neighbours would be of the same mapping.
    LIBC.madvise(ctypes.c_void_p(data), ctypes.c_size_t(BLOCK), MADV_DONTDUMP)
    found, inside = {}, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, _, rest = line.partition(" ")
        if not name.endswith(":"):
            begin, end = (int(number, 16) for number in name.split("-"))
            inside = begin <= data < end
        elif inside:
            found[name[:-1]] = rest.split() if name == "VmFlags:" else int(rest.split()[0])
    return found


def pages_there(data, size=BLOCK):
    states = (ctypes.c_ubyte * (size // 4096))()
    assert LIBC.mincore(ctypes.c_void_p(data), ctypes.c_size_t(size), states) == 0
    return sum(state & 1 for state in states)


def page_out(data, size=BLOCK):
    """Have the system take the pages, as it does when it needs memory. False if it cannot."""
    refused = LIBC.madvise(ctypes.c_void_p(data), ctypes.c_size_t(size), MADV_PAGEOUT)
    return not refused and pages_there(data, size) < size // 4096


def run(script, *arguments, **environment):
    """Run a script or a file, which may import this module, in a process of its own; return what it prints."""
    how = [script] if isinstance(script, Path) else ["-c", script]
    done = subprocess.run(
        [sys.executable, "-W", "error", *how, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]), **environment},
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout
