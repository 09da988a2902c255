"""OpenCV reads Caffe's and Darknet's nets, too, where it is installed (version 4; 5 does not)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.foreign_files import arrays_of, caffemodel, outputs, written
from tests.support.foreign_nets import SMALL_CAFFE, SMALL_DARKNET, Sound
from vggc.importing.caffe import read_caffe
from vggc.importing.darknet import read_darknet
from vggc.importing.foreign import Foreign

cv2: Any = pytest.importorskip("cv2")
if int(cv2.__version__.split(".")[0]) >= 5:
    pytest.skip("OpenCV 5 reads neither", allow_module_level=True)

GOOGLE = Sound(
    """
name: "inception"
input: "data" input_dim: 1 input_dim: 3 input_dim: 30 input_dim: 37
layers { bottom: "data" top: "c" name: "c" type: CONVOLUTION
  convolution_param { num_output: 8 pad: 1 kernel_size: 3 stride: 2 } }
layers { bottom: "c" top: "c" name: "r" type: RELU }
layers { bottom: "c" top: "n" name: "n" type: LRN
  lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 } }
layers { bottom: "n" top: "p" name: "p" type: POOLING
  pooling_param { pool: MAX kernel_size: 3 stride: 2 } }
layers { bottom: "p" top: "a" name: "a" type: CONVOLUTION
  convolution_param { num_output: 6 group: 2 kernel_h: 1 kernel_w: 3 pad_h: 0 pad_w: 1 } }
layers { bottom: "p" top: "b" name: "b" type: POOLING
  pooling_param { pool: AVE kernel_size: 3 stride: 1 pad: 1 } }
layers { bottom: "a" bottom: "b" top: "d" name: "d" type: CONCAT }
layers { bottom: "d" top: "q" name: "q" type: POOLING
  pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 } }
layers { bottom: "q" top: "fc6" name: "fc6" type: INNER_PRODUCT
  inner_product_param { num_output: 20 } }
layers { bottom: "fc6" top: "fc6" name: "drop6" type: DROPOUT }
layers { bottom: "fc6" top: "prob" name: "prob" type: SOFTMAX }
""",
    caffemodel(
        arrays_of(
            {
                "c": [(8, 3, 3, 3), (8,)],
                "a": [(6, 4, 1, 3), (6,)],
                "fc6": [(20, 14 * 20), (20,)],
            }
        ),
        v1=True,
        old=True,
    ),
)


def compare(foreign: Foreign, theirs: Any) -> None:
    sides = [each.dim_value for each in foreign.model.graph.input[0].type.tensor_type.shape.dim]
    x = np.random.default_rng(0).uniform(size=sides).astype(np.float32)
    theirs.setInput(x)
    expected = theirs.forward()
    (found,) = outputs(foreign, x)
    np.testing.assert_allclose(found.ravel(), expected.ravel(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("sound", [SMALL_CAFFE, GOOGLE])
def test_a_net_of_caffes_computes_what_opencv_computes(tmp_path: Path, sound: Sound) -> None:
    definition = written(tmp_path, "net.prototxt", sound.definition)
    weights = written(tmp_path, "net.caffemodel", sound.weights)
    theirs = cv2.dnn.readNetFromCaffe(str(definition), str(weights))
    compare(read_caffe(definition, weights), theirs)


def test_a_net_of_darknets_computes_what_opencv_computes(tmp_path: Path) -> None:
    """OpenCV adds 1e-6 to variances, below the root, which is neither Darknet's way, and reads no
    dense layers of maps.
    """
    convolutions, _ = SMALL_DARKNET.definition.split("[connected]")
    definition = written(tmp_path, "net.cfg", convolutions + "[avgpool]\n[softmax]\ngroups=1\n")
    dense = 4 * (2 + 2 * 36)
    weights = written(tmp_path, "net.weights", SMALL_DARKNET.weights[:-dense])
    foreign = read_darknet(definition, weights)
    for node in foreign.model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "epsilon":
                attribute.f = 1e-6
    compare(foreign, cv2.dnn.readNetFromDarknet(str(definition), str(weights)))
