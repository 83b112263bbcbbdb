"""Arbitrary bytes as .npy files of `eval` and `explain`: python tests/fuzz/readers.py [-max_total_time=60 ...]."""

import json
import random
import struct
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["crossentropy._stored", "crossentropy._scoring", "numpy.lib._format_impl"]):
    from oracle import as_bytes, fuzz, run

import numpy as np

import crossentropy as ce

WORDS = (
    *(
        "True",
        "False",
        "None",
        "-",
        "-1",
        "0",
        "1",
        "2**63",
        str(2**63),
        str(2**62),
        "1+1j",
        "7L",
        "0x7fffffffffffffff",
    ),
    *("(", ")", "[", "]", "{", "}", ",", ":", "'", '"', "\\", "\n", "\0", "#", "é", " " * 64),
    *("'<f4'", "'>f8'", "'|b1'", "'<U9'", "'|O'", "'<M8[s]'", "'|V2'", "'<f2'", "'<i8'", "'|u1'", "'<c8'", "'<f16'"),
    *("('<f4', (3,))", "[('a', '<f4')]", "(3, 4)", "(3,)", "()", "'shape': ", "'descr': ", "'fortran_order': "),
)
ARRAYS = {
    "logits": np.linspace(-2, 3, 12, dtype=np.float32).reshape(3, 4),
    "targets": np.array([0, 3, -100]),
    "weights": np.array([1.0, 0.5, 2.0, 0.0]),
    "rows": np.array([1.0, 0.0, 2.0]),
    "hidden": np.linspace(-1, 1, 6, dtype=np.float32).reshape(3, 2),
    "head": np.linspace(1, -1, 8, dtype=np.float32).reshape(4, 2),
}
EVAL = ("eval", "logits", "targets", "--json")
HEAD = ("eval", "targets", "--json", "--hidden")
COMMANDS = (  # what the file given stands for is "given.npy"
    ("eval", "given.npy", "targets", "--json", "--per-row", "out", "--grad", "gradient"),
    ("eval", "given.npy", "targets", "--json", "--axis", "0"),
    ("eval", "given.npy", "given.npy", "--json"),
    ("eval", "logits", "given.npy", "--json"),
    (*EVAL, "--class-weight", "given.npy"),
    (*EVAL, "--sample-weight", "given.npy"),
    (*HEAD, "given.npy", "--head", "head"),
    (*HEAD, "hidden", "--head", "given.npy"),
    (*HEAD, "hidden", "--head", "head", "--bias", "given.npy"),
    ("explain", "--logits", "given.npy", "--targets", "0 1 2", "--json"),
    ("explain", "--logits", "1 2 3; 4 5 6; 7 8 9", "--targets", "given.npy", "--json"),
    ("explain", "--logits", "1 2 3 4", "--targets", "1", "--class-weight", "given.npy", "--json"),
)


def seeds():
    arrays = [ARRAYS["logits"].astype(dtype) for dtype in ("<f2", "<f4", ">f4", "<f8", "<i4", "|u1", "<c8", "<f16")]
    arrays += [
        *ARRAYS.values(),
        np.asfortranarray(ARRAYS["logits"]),
        np.float64(3),
        np.eye(4)[:3],
        np.eye(3, dtype=bool),
    ]
    arrays += [
        np.zeros((0, 4)),
        np.zeros((3, 0)),
        np.zeros((2, 3, 4)),
        np.full((3, 4), np.nan),
        np.full((3, 4), np.inf),
    ]
    arrays += [np.array(["a"]), np.zeros(3, "<M8[s]"), np.zeros(3, [("a", "<f4")])]
    for number, array in enumerate(arrays):
        for command in range(len(COMMANDS)) if number < 16 else (0,):
            yield bytes([command]) + as_bytes(array, (1 + number % 2, 0))


def mutate(data, max_size, seed):
    """Change the header's text, or the elements, and keep the length that the header states of itself true."""
    chance = random.Random(seed)
    if len(data) < 11 or chance.random() < 0.2:
        return atheris.Mutate(data, max_size)
    command, version = data[0], data[7]
    wide = version != 1
    start = 13 if wide else 11
    length = int.from_bytes(data[9:start], "little")
    header, elements = bytearray(data[start : start + length]), data[start + length :]
    kind = chance.random()
    if kind < 0.3:
        elements = atheris.Mutate(bytes(elements), max(1, max_size - start - length))
    elif kind < 0.4:
        command = chance.randrange(len(COMMANDS))
    elif kind < 0.5:
        version, wide = chance.choice([(1, False), (2, True), (3, True)])
    else:
        for _ in range(chance.randint(1, 3)):
            begin = chance.randrange(len(header) + 1)
            end = begin + chance.choice([0, 0, 1, 2, 5])
            times = chance.choice([1, 1, 1, 1, 2000])
            header[begin:end] = chance.choice(WORDS).encode() * times
    stated = struct.pack("<I" if wide else "<H", len(header) & 0xFFFF)
    return (bytes([command]) + b"\x93NUMPY" + bytes([version, 0]) + stated + bytes(header) + elements)[:max_size]


def check_mean(printed):
    """The mean of the first command against the definition."""
    logits, targets = np.load("given.npy"), np.load("targets")
    if logits.dtype.kind not in "fiu" or logits.dtype.itemsize > 8:
        raise AssertionError(f"scored {logits.dtype}")
    with np.errstate(all="ignore"):
        losses, _ = ce.reference.cross_entropy_with_grad(logits, targets, reduction="none")
        mean, _ = ce.reference.cross_entropy_with_grad(logits, targets)
    found = json.loads(printed)["mean_nats"]
    if not np.isfinite(mean) or np.abs(losses).max(initial=0) > 1e37:
        assert found is None or np.isfinite(mean)
    else:
        assert abs(found - mean) <= 1e-6 * np.abs(losses).sum(), (found, mean)
    np.testing.assert_allclose(np.load("out").sum(), losses.sum(), rtol=1e-5)


def one_input(data):
    if not data:
        return
    command = COMMANDS[data[0] % len(COMMANDS)]
    Path("given.npy").write_bytes(data[1:])
    for name in ("out", "gradient"):
        Path(name).unlink(missing_ok=True)
    status, printed = run(command)
    assert status == 0 or not Path("out").exists()
    if status == 0 and command is COMMANDS[0]:
        check_mean(printed)


if __name__ == "__main__":
    fuzz("readers", seeds(), ARRAYS, one_input, ["-max_len=20000"], custom_mutator=mutate)
