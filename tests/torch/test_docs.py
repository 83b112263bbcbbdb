"""The page on torch and the docstrings of crossentropy.torch do what they say."""

import framework_docs
import pytest
import torch
import torch.nn.functional as F

import crossentropy.torch as ct
import crossentropy.torch.distributed


@pytest.mark.parametrize("package", [ct, crossentropy.torch.distributed], ids=lambda package: package.__name__)
def test_docstrings(package):
    assert framework_docs.failed_examples(package) == 0


def test_the_example_trains():
    assert framework_docs.run_code("torch.md")["right"] > 0.9


@pytest.mark.parametrize(("theirs", "ours"), framework_docs.rows_of_migration("torch.md"))
def test_migration(theirs, ours):
    names = {"torch": torch, "F": F, "ct": ct, "logits": torch.randn(6, 5), "target": torch.randint(0, 5, (6,))}
    names |= {"probabilities": torch.rand(6, 5), "weight": torch.rand(5), "w": torch.rand(6)}
    names |= {"hidden": torch.randn(6, 3), "classifier": torch.randn(5, 3), "bias": torch.randn(5)}
    names |= {"scores": torch.randn(6, 5), "labels": torch.rand(6, 5).round(), "pos_weight": 3 * torch.rand(5)}
    names |= {"teacher": torch.randn(6, 5), "sequences": torch.randn(2, 3, 5), "tokens": torch.randint(0, 5, (2, 3))}
    torch.testing.assert_close(eval(ours, names), eval(theirs, names))


def test_the_beginning():
    names = {"logits": torch.randn(6, 5), "target": torch.randint(0, 5, (6,)), "classifier": torch.randn(5, 3)}
    names["hidden"] = torch.randn(6, 3, requires_grad=True)
    framework_docs.run_beginning("torch.md", names)
    assert names["hidden"].grad.any()
