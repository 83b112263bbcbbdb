"""The ONNX backend tests of SoftmaxCrossEntropyLoss, all 34 that are not expansions of another."""

import warnings
from pathlib import Path

import numpy as np
import onnx.numpy_helper
import pytest

import crossentropy as ce

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from onnx.backend.test.loader import load_node_model_tests

    CASES = {
        case.name: case
        for case in load_node_model_tests()
        if case.name.startswith("test_sce_") and not case.name.endswith("_expanded")
    }


def test_all_cases_are_here():
    assert len(CASES) == 34


def arrays_of(case, number):
    """The inputs and outputs of one data set, as arrays."""
    if case.data_sets:
        return [[np.asarray(array) for array in arrays] for arrays in case.data_sets[number]]
    folder = min(Path(case.model_dir).glob("test_data_set_*"))
    read = []
    for kind in ("input", "output"):
        paths = sorted(folder.glob(f"{kind}_*.pb"))
        read.append([onnx.numpy_helper.to_array(onnx.load_tensor(path)) for path in paths])
    return read


@pytest.mark.parametrize("name", CASES)
def test_softmax_cross_entropy_loss(name):
    case = CASES[name]
    model = case.model or onnx.load(f"{case.model_dir}/model.onnx")
    node = model.graph.node[0]
    attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    (logits, targets, *weight), (expected, *log_probabilities) = arrays_of(case, 0)
    loss = ce.cross_entropy(
        logits,
        targets,
        axis=1,
        class_weight=weight[0] if weight else None,
        ignore_index=attributes.get("ignore_index"),
        reduction=attributes.get("reduction", b"mean").decode(),
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert np.shape(loss) == expected.shape
    if log_probabilities:
        np.testing.assert_allclose(ce.log_softmax(logits, axis=1), log_probabilities[0], rtol=1e-5)
