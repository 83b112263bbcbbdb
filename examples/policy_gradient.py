"""A policy that writes brackets
=============================

A tiny sequence policy learns by policy gradient to write brackets that match, with an entropy bonus and without::

    python examples/policy_gradient.py [FOLDER] [--steps N]

It writes ten of ``()[]{}``, one after another, each drawn from the prediction of a linear head on a hidden state. Each
one after which all can still be closed in time earns a tenth; the first that spoils this ends the sequence. Nothing
else is told: a token's advantage is what was earned from there on, minus the mean of the batch, so some are negative.
Either way it learns to earn nearly all; but without the bonus it ends with one sequence that it writes for ever. Writes
reward.png into FOLDER (examples-output by default).
"""

import argparse
from pathlib import Path

import matplotlib
import numpy as np
from rich.console import Console
from rich.progress import Progress
from threadpoolctl import threadpool_limits

import crossentropy as ce

matplotlib.use("Agg")
import matplotlib.pyplot as plt

BRACKETS, LENGTH, WIDTH, BATCH = "()[]{}", 10, 96, 64
Policy = dict[str, np.ndarray]


def new_policy(rng: np.random.Generator) -> Policy:
    return {
        "mix": rng.normal(0, 0.5, (LENGTH * len(BRACKETS), WIDTH)),  # what was written: how long ago, which bracket
        "place": rng.normal(0, 0.5, (LENGTH, WIDTH)),
        "head": np.zeros((len(BRACKETS), WIDTH)),
        "bias": np.zeros(len(BRACKETS)),
    }


def write(policy: Policy, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A batch of sequences; what was written before each token, one-hot; the hidden state that it was drawn from."""
    tokens, hidden = np.zeros((BATCH, LENGTH), int), np.zeros((BATCH, LENGTH, WIDTH))
    written = np.zeros((BATCH, LENGTH, LENGTH * len(BRACKETS)))
    for t in range(LENGTH):
        if t > 0:
            last = np.eye(len(BRACKETS))[tokens[:, t - 1]]
            written[:, t] = np.hstack([last, written[:, t - 1, : -len(BRACKETS)]])
        hidden[:, t] = np.tanh(written[:, t] @ policy["mix"] + policy["place"][t])
        logits = hidden[:, t] @ policy["head"].T + policy["bias"]
        tokens[:, t] = (logits + rng.gumbel(size=logits.shape)).argmax(1)  # a draw from their softmax
    return tokens, written, hidden


def good_brackets(tokens: np.ndarray) -> int:
    """How many of a sequence come before the first after which not all can be closed in time."""
    still_open: list[int] = []
    for t, token in enumerate(tokens):
        if token % 2 == 0:
            still_open.append(token + 1)
        elif not still_open or still_open.pop() != token:
            return t
        if len(still_open) > LENGTH - t - 1:
            return t
    return LENGTH


def gradients(policy: Policy, batch: tuple[np.ndarray, ...], bonus: float) -> tuple[Policy, float, float]:
    """The gradient of the loss, with the mean reward and the mean entropy of the tokens that count."""
    tokens, written, hidden = batch
    good = np.array([good_brackets(row) for row in tokens])
    place = np.arange(LENGTH)
    counts = place <= good[:, None]  # up to the one that ended it
    earned = np.maximum(good[:, None] - place, 0) / LENGTH  # from this token on
    advantages = np.where(counts, earned - (earned * counts).sum(0) / np.maximum(counts.sum(0), 1), 0.0)
    n = counts.sum()
    # The loss is minus the mean of advantage · log-probability + bonus · entropy. As cross_entropy with the advantages
    # as sample_weight and with entropy_bonus, the advantages would multiply the entropy too: where one is negative,
    # that would reward certainty. Here each output has an upstream gradient of its own.
    (_, entropy), of_head = ce.linear_log_prob_and_entropy_vjp(
        hidden, policy["head"], np.where(counts, tokens, -100), -advantages / n, -bonus / n, bias=policy["bias"]
    )
    assert of_head.hidden is not None
    before_tanh = of_head.hidden * (1 - hidden * hidden)
    of_mix = np.tensordot(written, before_tanh, ((0, 1), (0, 1)))
    change = {"mix": of_mix, "place": before_tanh.sum(0), "head": of_head.classifier, "bias": of_head.bias}
    return change, good.mean() / LENGTH, entropy.sum() / n


def train(bonus: float, steps: int, progress: Progress) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Reward and entropy at each step, and the sequences that the trained policy writes."""
    rng = np.random.default_rng(0)
    policy, curve = new_policy(rng), []
    moments = {name: (np.zeros_like(array), np.zeros_like(array)) for name, array in policy.items()}
    task = progress.add_task(f"bonus {bonus}", total=steps)
    for step in range(1, steps + 1):
        change, reward, entropy = gradients(policy, write(policy, rng), bonus)
        curve.append((reward, entropy))
        for name, gradient in change.items():  # Adam
            first, second = moments[name]
            first += 0.1 * (gradient - first)
            second += 0.01 * (gradient * gradient - second)
            rate = 0.01 * np.sqrt(1 - 0.99**step) / (1 - 0.9**step)
            policy[name] -= rate * first / (np.sqrt(second) + 1e-8)
        progress.update(task, advance=1, description=f"bonus {bonus}, reward {reward:.2f}")
    rewards, entropies = np.array(curve).T
    return rewards, entropies, ["".join(BRACKETS[token] for token in row) for row in write(policy, rng)[0]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("examples-output"))
    parser.add_argument("--steps", type=int, default=300, help="batches to learn from (default 300)")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True)

    figure, (of_reward, of_entropy) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    # Matrices this small are multiplied sooner by one thread than by several that wait for each other.
    with (
        threadpool_limits(1, "blas"),
        Progress(console=console, transient=True, disable=not console.is_terminal) as progress,
    ):
        for bonus, style in ((0.0, "--"), (0.02, "-")):
            rewards, entropies, written = train(bonus, arguments.steps, progress)
            of_reward.plot(rewards, color="black", linewidth=0.9, linestyle=style, label=f"bonus {bonus}")
            of_entropy.plot(entropies, color="black", linewidth=0.9, linestyle=style, label=f"bonus {bonus}")
            print(
                f"entropy bonus {bonus}: mean reward {rewards[0]:.3f} -> {rewards[-10:].mean():.3f}, entropy "
                f"{entropies[0]:.3f} -> {entropies[-10:].mean():.3f} nats, distinct among {BATCH} that it then writes "
                f"{len(set(written))}: {' '.join(written[:4])} …"
            )
    of_reward.set(xlabel="step", ylabel="mean reward of a batch", ylim=(0, 1.02), title="Brackets that match")
    of_entropy.set(xlabel="step", ylabel="mean entropy of a token (nats)", ylim=(0, 2), title="How open the next is")
    of_entropy.axhline(np.log(len(BRACKETS)), color="grey", linewidth=0.8)
    of_entropy.annotate("log 6: knowing nothing", (arguments.steps, np.log(6)), ha="right", va="bottom", color="grey")
    for axes in (of_reward, of_entropy):
        axes.legend()
    figure.savefig(arguments.folder / "reward.png", dpi=120)
    print(f"wrote {arguments.folder}/reward.png")


if __name__ == "__main__":
    main()
