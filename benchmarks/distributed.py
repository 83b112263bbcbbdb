"""Time, bytes and messages of a step whose classes are split over processes, beside torch's `loss_parallel`.

    make bench-distributed
    python benchmarks/distributed.py --ranks 2 --rounds 5

Loss and gradient of logits, and of hidden states and a classifier, in float32, on one, two and three processes of
this machine, one thread each, joined by gloo. In every round each peer takes its turn on all ranks at once, which
a barrier starts; a step takes as long as its slowest rank, and the best round counts. On fewer cores than ranks they
share them.

Bytes are those that a rank writes to its sockets in a step, as Linux counts them for the process, and messages those
writes, which include gloo's own of some bytes each; beside them stands what the formula of `sent` gives. The figures go
to build/results/distributed.json.
"""

import argparse
import importlib.metadata
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from results import write
from rich.console import Console
from rich.table import Table
from run import machine
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import loss_parallel
from torch.nn import functional

from crossentropy import _core
from crossentropy.torch.distributed import (
    _exchange,
    _parts,
    vocab_parallel_cross_entropy,
    vocab_parallel_linear_cross_entropy,
)

ROWS, WIDTH, CLASSES = 2048, 1024, 32000
# What the formula is made of.
SENT = {
    "row bytes": 8 * _parts._SINGLE_FIELDS,
    "dense row bytes": 8 * _core.part_fields,
    "gather ranks": _exchange.GATHER_RANKS,
    "gather bytes": _exchange.GATHER_BYTES,
}
SHAPES = {
    "logits": f"{ROWS} x {CLASSES}",
    "head": f"{ROWS} x {WIDTH} x {CLASSES}",
}
Step = Callable[[], object]


def sent(shape: str, ranks: int) -> float:
    """Bytes that a rank sends in a step, without headers: the numbers of each row to every other rank; for a head what
    it adds to the hidden gradient, to the rank that sums it, and its part of the sum to every other.
    """
    statistics = (ranks - 1) * ROWS * SENT["row bytes"]
    return statistics + (shape == "head") * 2 * (ranks - 1) / ranks * ROWS * WIDTH * 4


def inputs(ranks: int, rank: int) -> tuple[torch.Tensor, ...]:
    """Hidden states, this rank's part of the classifier and of the logits, targets."""
    torch.manual_seed(0)
    hidden, classifier = torch.randn(ROWS, WIDTH), torch.randn(CLASSES, WIDTH) / WIDTH**0.5
    part = classifier.tensor_split(ranks)[rank].clone()
    targets = torch.randint(0, CLASSES, (ROWS,))
    return hidden.requires_grad_(), part.requires_grad_(), (hidden @ part.t()).detach().requires_grad_(), targets


def peers(ranks: int, rank: int) -> dict[tuple[str, str], Step]:
    """What is timed."""
    hidden, classifier, logits, targets = inputs(ranks, rank)
    mesh = init_device_mesh("cpu", (ranks,))

    def split(tensor: torch.Tensor, axis: int) -> DTensor:
        shape = list(tensor.shape)
        shape[axis] = CLASSES
        return DTensor.from_local(
            tensor, mesh, [Shard(axis)], run_check=False, shape=torch.Size(shape), stride=(shape[1], 1)
        )

    def ours() -> object:
        loss = vocab_parallel_cross_entropy(logits, targets)
        return torch.autograd.grad(loss, logits)

    def theirs() -> object:
        with loss_parallel():
            loss = functional.cross_entropy(split(logits, 1), targets)
            return torch.autograd.grad(loss, logits)

    def our_head() -> object:
        loss = vocab_parallel_linear_cross_entropy(hidden, classifier, targets)
        return torch.autograd.grad(loss, (hidden, classifier))

    def their_head() -> object:
        with loss_parallel():
            states = DTensor.from_local(hidden, mesh, [Replicate()], run_check=False)
            loss = functional.cross_entropy(functional.linear(states, split(classifier, 0)), targets)
            return torch.autograd.grad(loss, (hidden, classifier))

    return {
        ("logits", "crossentropy"): ours,
        ("logits", "loss_parallel"): theirs,
        ("head", "crossentropy"): our_head,
        ("head", "loss_parallel"): their_head,
    }


def written() -> np.ndarray:
    """Bytes and writes of this process so far."""
    lines = Path("/proc/self/io").read_text().splitlines()
    counts = dict(line.split(": ") for line in lines)
    return np.array([int(counts["wchar"]), int(counts["syscw"])])


def on_rank(rank: int, ranks: int, rounds: int, folder: str) -> None:
    """Time all peers; the first rank leaves in a file what was found."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # loss_parallel's
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks)
    found: dict[tuple[str, str], list[Any]] = {}
    steps = peers(ranks, rank)
    for step in steps.values():
        step()
    for _ in range(rounds):
        for name, step in steps.items():
            dist.barrier()
            before, begin = written(), time.perf_counter()
            step()
            seconds = time.perf_counter() - begin
            found.setdefault(name, []).append([seconds, *(written() - before)])
    table = torch.tensor(np.array(list(found.values())))  # (peers, rounds, 3)
    every = torch.empty(ranks, *table.shape, dtype=table.dtype)
    dist.all_gather_into_tensor(every, table.unsqueeze(0))
    if rank == 0:
        np.save(Path(folder) / "found.npy", every.numpy())
    dist.destroy_process_group()


def measure(ranks: int, rounds: int) -> dict[tuple[str, str], dict[str, float]]:
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(on_rank, (ranks, rounds, folder), ranks)
        found = np.load(Path(folder) / "found.npy")
    names = [(shape, peer) for shape in SHAPES for peer in ("crossentropy", "loss_parallel")]
    return {
        name: {
            "milliseconds": 1e3 * float(found[:, i, :, 0].max(0).min()),
            # Of the rank that sends most; the least of all rounds, since a barrier's last write may be late.
            "bytes": float(found[:, i, :, 1].min(1).max()),
            "messages": float(found[:, i, :, 2].min(1).max()),
        }
        for i, name in enumerate(names)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, action="append", help="processes; may be repeated (default 1 to 3)")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each peer (default 7)")
    arguments = parser.parse_args()
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    console = Console(width=110, highlight=False)
    shapes: dict[str, dict[str, dict[str, dict[str, float]]]] = {name: {} for name in SHAPES.values()}
    for ranks in arguments.ranks or (1, 2, 3):
        for (shape, peer), figures in measure(ranks, arguments.rounds).items():
            of_ranks = shapes[SHAPES[shape]].setdefault(f"{ranks} rank{'s' * (ranks > 1)}", {})
            of_ranks[peer] = figures | ({"derived bytes": sent(shape, ranks)} if peer == "crossentropy" else {})
    for shape, found in shapes.items():
        table = Table(title=f"loss and gradient, {shape}, float32", title_justify="left")
        for column in ("", "", "ms", "to crossentropy", "bytes", "derived", "messages"):
            table.add_column(column, justify="right" if column else "left")
        for name, of_ranks in found.items():
            ours = of_ranks["crossentropy"]["milliseconds"]
            for peer, x in of_ranks.items():
                derived = f"{x['derived bytes']:,.0f}" if "derived bytes" in x else ""
                ratio = f"{x['milliseconds'] / ours:.2f}"
                cells = (f"{x['milliseconds']:.1f}", ratio, f"{x['bytes']:,.0f}", derived, f"{x['messages']:.0f}")
                table.add_row(name, peer, *cells)
        console.print(table)
    versions = {"torch": importlib.metadata.version("torch")}
    path = write("distributed", {"machine": machine(versions) | {"threads": 1}, **SENT, "shapes": shapes})
    console.print(f"figures in {path}")


if __name__ == "__main__":
    main()
