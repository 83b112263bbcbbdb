"""Files: what kind a path is, whether two are one, and an output that is written whole or not at all."""

import contextlib
import errno
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

COPY_BYTES = 1 << 20
_KINDS = (
    (stat.S_ISREG, "file"),
    (stat.S_ISFIFO, "pipe"),
    (stat.S_ISCHR, "character device"),
    (stat.S_ISBLK, "block device"),
    (stat.S_ISDIR, "directory"),
    (stat.S_ISSOCK, "socket"),
)


def check_kind(path: Path, accepted: tuple[str, ...]) -> str:
    """What an existing path leads to: one of the accepted kinds, else OSError."""
    mode = path.stat().st_mode
    kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "thing of another kind")
    if kind not in accepted:
        number = errno.EISDIR if kind == "directory" else errno.EINVAL
        raise OSError(number, f"expected a {' or a '.join(accepted)}, got a {kind}", str(path))
    return kind


def same_file(a: Path, b: Path) -> bool:
    """Whether two paths name the same file, or the same place for a file that does not exist yet."""
    try:
        return a.samefile(b)
    except OSError:
        return os.path.realpath(a) == os.path.realpath(b)


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """Let an OSError name the path that the user gave."""
    try:
        yield
    except OSError as error:
        # A broken pipe without a name is that of standard output, where a command ends quietly; this one is told.
        number = errno.EIO if error.errno == errno.EPIPE else error.errno
        raise OSError(number, error.strerror or str(error), str(path)) from None


@contextlib.contextmanager
def whole(path: Path) -> Iterator[IO[bytes]]:
    """Open a file to write. It replaces `path` when it is complete; if anything fails, it is deleted.

    A link is followed, an existing file keeps its permissions. A pipe, a terminal, /dev/null, and the file that
    standard output goes to, are written to instead, when all is there.
    """
    with named(path):
        try:
            found = path.stat()
        except FileNotFoundError:
            found = None
        if found:
            check_kind(path, ("file", "pipe", "character device"))
        stream = _stream(path, found)
    if stream:
        with stream, tempfile.TemporaryFile(buffering=0) as file:
            yield file
            file.seek(0)
            with named(path):
                while piece := file.read(COPY_BYTES):
                    write_all(stream, memoryview(piece))
        return
    target = Path(os.path.realpath(path))
    partial = target.with_name(f".{target.name[:50]}.{secrets.token_hex(8)}.partial")
    try:
        with named(path):
            file = partial.open("x+b", buffering=0)
        with file:
            if found:
                partial.chmod(stat.S_IMODE(found.st_mode))
            yield file
            with named(path):
                os.fsync(file.fileno())
        with named(path):
            partial.replace(target)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def write_all(file: IO[bytes], memory: memoryview) -> None:
    """Write all bytes to an unbuffered file, which may accept only a part at a time."""
    while memory:
        memory = memory[file.write(memory) :]


def _stream(path: Path, found: os.stat_result | None) -> IO[bytes] | None:
    """An open stream for a path that must not be replaced: a pipe, a device, standard output or standard error."""
    if found is None:
        return None
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):  # a closed one
            if os.path.samestat(os.fstat(descriptor), found):
                return os.fdopen(os.dup(descriptor), "wb", buffering=0)
    return None if stat.S_ISREG(found.st_mode) else path.open("wb", buffering=0)
