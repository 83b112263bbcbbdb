"""Arbitrary words as arguments of every command: python tests/fuzz/arguments.py [-max_total_time=60 ...]."""

import random
import re
import shlex
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["crossentropy.cli", "crossentropy._explain", "crossentropy._options"]):
    from oracle import fuzz, run

import numpy as np
import typer

from crossentropy import cli

FILES = {
    "logits.npy": np.linspace(-2, 3, 12, dtype=np.float32).reshape(3, 4),
    "targets.npy": np.array([0, 3, -100]),
    "dense.npy": np.eye(4)[:3],
    "hidden.npy": np.linspace(-1, 1, 6, dtype=np.float32).reshape(3, 2),
    "head.npy": np.linspace(1, -1, 8, dtype=np.float32).reshape(4, 2),
    "bias.npy": np.ones(4, np.float32),
    "weights.npy": np.array([1.0, 0.5, 2.0, 0.0]),
    "rows.npy": np.array([1.0, 0.0, 2.0]),
}
COMMANDS = typer.main.get_command(cli.app).commands
EXAMPLES = {  # of each command: its options as their help shows them
    name: [
        shlex.split(re.search(r"e\.g\. (--.*?)\.?$", p.help)[1]) for p in command.params if "e.g. --" in (p.help or "")
    ]
    for name, command in COMMANDS.items()
}
VALUES = (
    *FILES,
    *(
        "out.npy",
        "./out.npy",
        "absent/out.npy",
        "",
        ".",
        "..",
        "a.gif",
        "a.svg",
        "missing.npy",
        "folder.npy",
        "é\n\x1b[1m",
    ),
    *(
        "0",
        "1",
        "-1",
        "2",
        "-100",
        "99999999999999999999",
        "-9223372036854775808",
        "1e400",
        "nan",
        "inf",
        "-inf",
        "0.5",
    ),
    *(
        "1e-320",
        "1e308",
        "1_0",
        "٣",
        " 1 ",
        "mean",
        "sum",
        "none",
        "1 2 3",
        "1 2 3; 4 5 6",
        "1,2;3,4",
        ";",
        "; ;",
        "1;",
    ),
    *(
        "1e308 -1e308",
        "nan 1",
        "inf inf",
        "-inf 0",
        "0 1",
        "1 0",
        "0.5 0.5",
        "0 0.5 0.5",
        "a,b,c",
        "a,a,a",
        ",,",
        "--",
        "-",
    ),
    *("0x10", "1j", "99999999999999999999 1", "0 " * 40, "1 2;" * 40, "\\", "$x$_^", "[red]a[/],b,c", "true", "[/]"),
    *("[[1, 2], [3, 4]]", "[1 2]\n[3 4]", "[[1", "array([1])", "b a", "1:2", "1:", ":", "-1", "2:1", "1::2"),
)


def words_of(data):
    """The words that some bytes name: real commands, options and values, and now and then the bytes themselves."""
    take = atheris.FuzzedDataProvider(data)
    name = take.PickValueInList(["eval", "eval", "explain", "explain", "info", "--version", "foo"])
    words = [name]
    if name == "eval" and take.ConsumeIntInRange(0, 9):
        words += ["logits.npy", take.PickValueInList(["targets.npy", "dense.npy"])]
    for _ in range(take.ConsumeIntInRange(0, 5)):
        kind = take.ConsumeIntInRange(0, 9)
        example = take.PickValueInList(EXAMPLES.get(name) or [["--help"]])
        if kind < 5:
            words += example
        elif kind < 8:
            words += [example[0], take.PickValueInList(list(VALUES))]
        elif kind < 9:
            words.append(take.PickValueInList(list(VALUES)))
        else:
            given = take.ConsumeBytes(take.ConsumeIntInRange(0, 12)).translate(None, b"\0/")  # stay in this folder
            words.append(given.decode(errors="surrogateescape"))
    return words


def one_input(data):
    for path in Path().iterdir():
        if path.name not in FILES and path.is_file():
            path.unlink()
    words = words_of(data)
    drawn = [word for word in words if word.endswith((".svg", ".png", ".pdf"))]
    if drawn and data[-1] % 16:  # half a second each
        words = [word for word in words if word not in drawn]
    run(words)


if __name__ == "__main__":
    chance = random.Random(0)
    seeds = (chance.randbytes(chance.randint(2, 200)) for _ in range(300))
    fuzz("arguments", seeds, FILES, one_input, ["-max_len=200", "-len_control=0"])
