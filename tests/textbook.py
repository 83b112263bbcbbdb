"""The rows of the lesson: logits, one-hot targets, losses, and the gradient of the mean."""

import numpy as np

A = np.array([[2.0, 1.0, 0.1], [0.1, 2.0, 1.9]])
Y = np.array([[0, 1, 0], [1, 0, 0]])
LOSSES = [1.4170300162778335, 2.6199867732059325]
GRADIENT = [
    [0.32950056944298395, -0.37878351464764304, 0.04928294520465909],
    [-0.46359808710886097, 0.24337934708720066, 0.22021874002166028],
]
