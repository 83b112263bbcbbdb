"""A classifier of digits
======================

A softmax classifier trained on scikit-learn's handwritten digits::

    python examples/digits.py [FOLDER]

Writes hidden.npy (the pixels), head.npy (the weights) and targets.npy of the digits held out, and loss.png, into FOLDER
(demo-output by default).
"""

import sys
from pathlib import Path

import matplotlib
import numpy as np
from rich.console import Console
from rich.progress import track
from sklearn.datasets import load_digits

import crossentropy as ce

matplotlib.use("Agg")
import matplotlib.pyplot as plt

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "demo-output")
folder.mkdir(parents=True, exist_ok=True)
terminal = Console(stderr=True).is_terminal

# Digits: 8 x 8 pixels, ten classes; the last fifth is held out.
images, digits = load_digits(return_X_y=True)
features = np.hstack([images / 16.0, np.ones((len(images), 1))]).astype(np.float32)
split = len(digits) * 4 // 5
x, t, x_held_out, t_held_out = features[:split], digits[:split], features[split:], digits[split:]

weights = np.zeros((10, features.shape[1]), np.float32)
velocity = np.zeros_like(weights)
training, held_out = [], []
print(f"training on {split} digits")
for _ in track(range(300), "training", disable=not terminal, console=Console(stderr=True)):
    loss, gradients = ce.linear_cross_entropy_with_grad(x, weights, t, wrt=["classifier"])
    training.append(loss)
    held_out.append(ce.linear_cross_entropy(x_held_out, weights, t_held_out))
    velocity = 0.9 * velocity - 0.5 * gradients.classifier
    weights += velocity
training.append(ce.linear_cross_entropy(x, weights, t))
held_out.append(ce.linear_cross_entropy(x_held_out, weights, t_held_out))
print(f"training loss {training[0]:.4f} -> {training[-1]:.4f} nats, held out {held_out[0]:.4f} -> {held_out[-1]:.4f}")

np.save(folder / "hidden.npy", x_held_out)
np.save(folder / "head.npy", weights)
np.save(folder / "targets.npy", t_held_out)

figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
axes.plot(training, label="training", color="black")
axes.plot(held_out, label="held out", color="black", linestyle="--")
axes.axhline(np.log(10), color="grey", linewidth=0.8)
axes.annotate("log 10: knowing nothing", (300, np.log(10)), ha="right", va="bottom", color="grey")
axes.set(xlabel="step", ylabel="mean cross-entropy (nats)", ylim=(0, 2.5), title="Softmax classifier on digits")
axes.legend()
figure.savefig(folder / "loss.png", dpi=120)
print(f"wrote {folder}/hidden.npy, head.npy, targets.npy, loss.png")
