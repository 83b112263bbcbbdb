"""A model of words, its vocabulary split
=======================================

The next-word model of ``word_model.py`` in PyTorch, each of several processes with a part of the vocabulary::

    python examples/vocab_parallel.py [--ranks N] [--steps N]

Each process has the whole of what is small, and of the head the rows of its own words. They exchange a few numbers for
each row of the batch, and add up the gradient of the hidden states; the logits of all words are nowhere. What they
learn at each step is what one process learns that has all words. Needs PyTorch; gloo joins the processes on this
machine.
"""

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from rich.console import Console
from rich.table import Table
from torch import Tensor
from word_model import BATCH, CONTEXT, EMBEDDING, WIDTH, docstrings, examples, numbered

import crossentropy.torch as ct
from crossentropy.torch.distributed import vocab_parallel_linear_cross_entropy

# sphinx_gallery_thumbnail_path = 'docs/scaling.png'

Batches = list[tuple[Tensor, Tensor]]


class WordModel(torch.nn.Module):
    """The last words embedded and mixed into a hidden state; of the head the rows of some words."""

    def __init__(self, classes: int, words: slice) -> None:
        super().__init__()
        torch.manual_seed(0)  # the same model in every process
        self.embedding = torch.nn.Embedding(classes, EMBEDDING)
        self.mix = torch.nn.Linear(CONTEXT * EMBEDDING, WIDTH)
        self.head = torch.nn.Parameter((0.01 * torch.randn(classes, WIDTH))[words].clone())
        self.bias = torch.nn.Parameter(torch.zeros(classes)[words].clone())

    def forward(self, context: Tensor) -> Tensor:
        return torch.tanh(self.mix(self.embedding(context).flatten(1)))


def train(model: WordModel, batches: Batches, loss_of: Callable[..., Tensor]) -> list[float]:
    """The loss of each step."""
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=2e-3), []
    for context, targets in batches:
        optimizer.zero_grad()
        loss = loss_of(model(context), model.head, targets, model.bias)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def in_one_process(hidden: Tensor, head: Tensor, targets: Tensor, bias: Tensor) -> Tensor:
    return ct.linear_cross_entropy(hidden, head, targets, linear_bias=bias)


def in_several(hidden: Tensor, head: Tensor, targets: Tensor, bias: Tensor) -> Tensor:
    return vocab_parallel_linear_cross_entropy(hidden, head, targets, linear_bias_shard=bias)


def on_rank(rank: int, ranks: int, folder: str, classes: int, batches: Batches) -> None:
    """What each process does; the losses go to a file of its own."""
    torch.set_num_threads(max(1, torch.get_num_threads() // ranks))
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks)
    words = slice(classes * rank // ranks, classes * (rank + 1) // ranks)
    np.save(Path(folder) / f"{rank}.npy", train(WordModel(classes, words), batches, in_several))
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2, help="processes (default 2)")
    parser.add_argument("--steps", type=int, default=20, help="batches to learn from (default 20)")
    arguments = parser.parse_args()

    texts, classes = numbered(docstrings())
    context, targets = examples(texts)
    order = np.random.default_rng(0).permutation(len(targets))
    steps = [order[step * BATCH :][:BATCH] for step in range(arguments.steps)]
    batches = [(torch.from_numpy(context[rows]), torch.from_numpy(targets[rows])) for rows in steps]
    print(f"{len(targets):,} words to learn from, vocabulary of {classes:,}, {arguments.ranks} processes")

    one = train(WordModel(classes, slice(None)), batches, in_one_process)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # this machine alone
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(on_rank, (arguments.ranks, folder, classes, batches), arguments.ranks)
        several = [np.load(Path(folder) / f"{rank}.npy") for rank in range(arguments.ranks)]

    table = Table("step", "one process", f"{arguments.ranks} processes", box=None)
    for step in sorted({0, 1, 2, arguments.steps // 2, arguments.steps - 1}):
        table.add_row(str(step + 1), f"{one[step]:.8f}", f"{several[0][step]:.8f}")
    Console(highlight=False).print(table)
    assert all(np.array_equal(several[0], losses) for losses in several), "every process computes the same bits"
    print(f"largest relative difference of a loss {np.abs(several[0] / one - 1).max():.1e}")


if __name__ == "__main__":
    main()
