"""Files read and written by the commands, and the one way to fail."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import typer

from .._arrays import Array


def fail(path: Path | None, reason: object) -> NoReturn:
    """One line that names the file and the reason; exit status 2."""
    print(f"crossentropy: {f'{path}: ' if path else ''}{' '.join(str(reason).split())}", file=sys.stderr)
    raise typer.Exit(2)


def load(path: Path) -> Array:
    try:
        with path.open("rb") as file:
            if file.read(6) != b"\x93NUMPY":
                fail(path, "expected a NumPy .npy file")
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        fail(path, error.strerror or error)
    except ValueError as error:
        fail(path, "pickled objects are refused" if "object" in str(error).lower() else error)
    return np.asarray(array)


@contextlib.contextmanager
def whole_file(path: Path | None, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Iterator[Array | None]:
    """An .npy file to fill, which gets its name when it is complete; on any failure nothing is left."""
    if path is None:
        yield None
        return
    partial = None
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
        partial = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            size = file.tell() + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            file.flush()
            if hasattr(os, "posix_fallocate"):  # a full disk is told now, not by a crash while writing
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
        array = np.lib.format.open_memmap(partial, mode="r+") if np.prod(shape) else np.empty(shape, dtype)
        yield np.asarray(array)
        if isinstance(array, np.memmap):
            array.flush()
        partial.chmod(0o666 & ~_umask())
        partial.replace(path)
    except OSError as error:
        fail(path, error.strerror or error)
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
