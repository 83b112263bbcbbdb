"""Arrays in .npy files, of which blocks are read and written.

They are not mapped into memory: there a file that shrinks, or a disk that fills, ends the process by a signal; here it
is an exception.
"""

import contextlib
import errno
import io
import math
import os
import sys
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from ._advice import NUMBERED
from ._arrays import Array, Shape, empty
from ._files import COPY_BYTES, check_kind, named, write_all

Index = tuple[int | slice, ...]
MOST_HEADER = 10_000  # of text, as NumPy has it too: more takes Python long to parse


@dataclass(frozen=True)
class Stored:
    """An array in a file, which may be larger than memory. Indexing reads or writes a block of it."""

    file: IO[bytes]
    path: Path
    start: int  # of the elements, in bytes
    dtype: np.dtype[Any]
    layout: Shape  # in C order, as they lie in the file
    axes: Shape  # which axis of the layout each axis is

    @property
    def shape(self) -> Shape:
        return tuple(self.layout[axis] for axis in self.axes)

    @property
    def ndim(self) -> int:
        return len(self.axes)

    def transpose(self, axes: Sequence[int]) -> "Stored":
        return replace(self, axes=tuple(self.axes[axis] for axis in axes))

    def __getitem__(self, at: Index) -> Array:
        lengths, runs, shape = self._block(at)
        block = empty(tuple(lengths), self.dtype)
        memory = block.reshape(-1).view(np.uint8).data
        with named(self.path):
            for offset, place in runs:
                self.file.seek(offset)
                _read(self.file, memory[place])
        return block.transpose(self.axes).reshape(shape)

    def __setitem__(self, at: Index, values: Array) -> None:
        lengths, runs, _ = self._block(at)
        values = np.asarray(values, self.dtype).reshape([lengths[axis] for axis in self.axes])
        block = np.ascontiguousarray(values.transpose(np.argsort(self.axes)))
        memory = block.reshape(-1).view(np.uint8).data
        with named(self.path):
            for offset, place in runs:
                self.file.seek(offset)
                write_all(self.file, memory[place])

    def _block(self, at: Index) -> tuple[list[int], Iterator[tuple[int, slice]], list[int]]:
        """The shape of a block in the file, its runs of bytes, and the shape in which it is returned."""
        at = (*at, *[slice(None)] * (self.ndim - len(at)))
        begins, lengths, shape = [0] * self.ndim, [0] * self.ndim, []
        for axis, index in zip(self.axes, at, strict=True):
            if isinstance(index, slice):
                begin, end, _ = index.indices(self.layout[axis])
                shape.append(max(0, end - begin))
                begins[axis], lengths[axis] = begin, shape[-1]
            else:
                begins[axis], lengths[axis] = index, 1
        return lengths, self._runs(begins, lengths), shape

    def _runs(self, begins: list[int], lengths: list[int]) -> Iterator[tuple[int, slice]]:
        """Each run of a block: its offset in the file, and its place in the block."""
        whole = (1, *self.layout)
        begins, lengths = [0, *begins], [1, *lengths]
        cut = max((axis for axis in range(len(whole)) if lengths[axis] != whole[axis]), default=0)
        strides = [self.dtype.itemsize * math.prod(whole[axis + 1 :]) for axis in range(len(whole))]
        size = lengths[cut] * strides[cut]
        offsets = np.array([self.start + begins[cut] * strides[cut]])
        for begin, length, stride in zip(begins[:cut], lengths[:cut], strides[:cut], strict=True):
            offsets = np.add.outer(offsets, stride * np.arange(begin, begin + length)).reshape(-1)
        for number, offset in enumerate(offsets.tolist() if size else []):
            yield offset, slice(number * size, (number + 1) * size)


def _read(file: IO[bytes], memory: memoryview) -> None:
    done = 0
    while done < len(memory):
        count = file.readinto(memory[done:])  # type: ignore[attr-defined]  # IO has what all binary files have
        if not count:
            raise OSError(errno.EIO, f"expected {len(memory):,} more bytes, got {done:,}: it shrank while it was read")
        done += count


def open_array(path: Path) -> Stored:
    """Open a .npy file to read; a pipe is read whole. The caller closes its file.

    Raises OSError; ValueError if it is not an array of numbers, or is cut short.
    """
    pipe = check_kind(path, ("file", "pipe")) == "pipe"
    with contextlib.ExitStack() as opened, named(path):
        file: IO[bytes] = opened.enter_context(path.open("rb", buffering=0))
        shape, fortran_order, dtype = _header(file)
        size = math.prod(shape) * dtype.itemsize
        if pipe:
            try:
                file = _copy(file, size)
            except MemoryError:
                lacking = "not enough memory to read a pipe whole; a file is read block by block"
                raise OSError(errno.ENOMEM, lacking) from None
            start, found = 0, file.tell()
        else:
            start = file.tell()
            found = os.fstat(file.fileno()).st_size - start
        if found < size:
            raise ValueError(f"expected {size:,} bytes for shape {shape} of {dtype}, got {found:,}")
        if not pipe:
            opened.pop_all()
    axes = tuple(range(len(shape)))
    layout, axes = (shape[::-1], axes[::-1]) if fortran_order else (shape, axes)
    return Stored(file, path, start, dtype, layout, axes)


def _copy(file: IO[bytes], size: int) -> io.BytesIO:
    """Read at most so many bytes. Memory grows with what arrives, since a header may promise any size."""
    memory = io.BytesIO()
    while piece := file.read(min(size - memory.tell(), COPY_BYTES)):
        memory.write(piece)
    return memory


def _header(file: IO[bytes]) -> tuple[Shape, bool, np.dtype[Any]]:
    """Read shape, order and type, and check what NumPy's reader leaves unchecked."""
    try:
        version = np.lib.format.read_magic(file)
    except ValueError:
        raise ValueError("expected a NumPy .npy file") from None
    if version not in {(1, 0), (2, 0), (3, 0)}:
        raise ValueError(f"expected version 1, 2 or 3 of the .npy format, got {version[0]}.{version[1]}")
    # 3.0 is 2.0 with names in UTF-8, and an array of numbers has none.
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    file = _text_of_header(file, 2 if version == (1, 0) else 4)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python 2 wrote it; its strings have odd escapes
            shape, fortran_order, dtype = read(file)
    except OSError:
        raise
    except Exception as error:  # Python parses it, and may raise nearly any exception on arbitrary text
        reason = textwrap.shorten(str(error), 80, placeholder=" …") or type(error).__name__
        raise ValueError(f"expected a .npy header, got one that NumPy does not read: {reason}") from None
    if dtype.hasobject:
        raise ValueError("pickled objects are refused")
    if dtype.kind not in "biufc":
        hint = " (NumPy saves bfloat16 so: save it as float32)" if dtype == np.dtype("V2") else ""
        hint = f": {NUMBERED}" if dtype.kind in "US" else hint
        raise ValueError(f"expected an array of numbers, got dtype {dtype}{hint}")
    if any(type(length) is not int or length < 0 for length in shape):
        raise ValueError(f"expected a shape of integers of at least 0, got {shape}")
    if len(shape) > 32 or math.prod(max(length, 1) for length in shape) * dtype.itemsize > sys.maxsize:
        raise ValueError(f"expected at most 32 axes and {sys.maxsize:,} bytes, got shape {shape} of {dtype}")
    return shape, fortran_order, dtype


def _text_of_header(file: IO[bytes], digits: int) -> io.BytesIO:
    """Read the header's length, which NumPy's reader would not check, and the header."""
    length = _exactly(file, digits)
    size = int.from_bytes(length, "little")
    if size > MOST_HEADER:
        raise ValueError(f"expected a .npy header of at most {MOST_HEADER:,} bytes, got {size:,}")
    return io.BytesIO(length + _exactly(file, size))


def _exactly(file: IO[bytes], size: int) -> bytes:
    """Read so many bytes of an unbuffered file, which may return fewer at a time; fewer only at its end."""
    found = b""
    while len(found) < size and (piece := file.read(size - len(found))):
        found += piece
    return found


def new_array(file: IO[bytes], path: Path, shape: Shape, dtype: np.dtype[Any]) -> Stored:
    """Write the header of a .npy file, whose blocks are written later."""
    with named(path):
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()
        size = start + math.prod(shape) * dtype.itemsize
        if hasattr(os, "posix_fallocate"):  # a full disk is noticed now, not after an hour
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
    return Stored(file, path, start, dtype, shape, tuple(range(len(shape))))
