"""Darknet's definitions and weights, against torch in float64."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tests.support.foreign_files import arrays_of, darknet_weights, outputs, written
from tests.support.foreign_nets import VGG16_CFG, vgg16_arrays, vgg16_of
from vggc.importing.darknet import read_darknet
from vggc.importing.foreign import Foreign
from vggc.support.diagnostics import UserError
from vggc_runtime.preprocessing import Preprocessing

NET = "[net]\nheight=8\nwidth=7\nchannels=4\n"
Shapes = Sequence[tuple[int, ...]]
Meaning = Callable[..., Tensor]


def drawn(shapes: Shapes) -> list[NDArray[np.float32]]:
    named = arrays_of({str(at): [shape] for at, shape in enumerate(shapes)})
    return [each for (each,) in named.values()]


def net(tmp_path: Path, text: str, shapes: Shapes, *, on_a_cpu: bool = False) -> Foreign:
    definition = written(tmp_path, "net.cfg", NET + text)
    weights = written(tmp_path, "net.weights", darknet_weights(drawn(shapes)))
    return read_darknet(definition, weights, beside_the_root=on_a_cpu)


def images(foreign: Foreign) -> NDArray[np.float32]:
    sides = foreign.model.graph.input[0].type.tensor_type.shape.dim
    draw = np.random.default_rng(1)
    return draw.uniform(size=[each.dim_value for each in sides]).astype(np.float32)


def normed(x: Tensor, scale: Tensor, mean: Tensor, root: Tensor, bias: Tensor) -> Tensor:
    scale, mean, root, bias = (each.view(-1, 1, 1) for each in (scale, mean, root, bias))
    return (x - mean) / root * scale + bias


def darknets_maximum(x: Tensor, size: int, stride: int, padding: int) -> Tensor:
    """[maxpool] as maxpool_layer.c has it."""
    lower, higher = padding // 2, padding + stride + size
    padded = functional.pad(x, (lower, higher, lower, higher), value=-torch.inf)
    rows, columns = ((side + padding - size) // stride + 1 for side in x.shape[2:])
    return functional.max_pool2d(padded, size, stride)[:, :, :rows, :columns]


CONV = "[convolutional]\nfilters=6\nsize=3\n"
LINEAR = "activation=linear\n"
CASES: list[tuple[str, str, Shapes, Meaning]] = [
    (
        "a convolution, which is logistic unless it says otherwise",
        CONV + "stride=2\npad=1\n",
        [(6,), (6, 4, 3, 3)],
        lambda x, b, w: functional.conv2d(x, w, b, 2, 1).sigmoid(),
    ),
    (
        "a convolution in groups, padded by hand",
        CONV + "padding=2\ngroups=2\nactivation=relu\n",
        [(6,), (6, 2, 3, 3)],
        lambda x, b, w: functional.conv2d(x, w, b, 1, 2, 1, 2).relu(),
    ),
    (
        "a dilated convolution with two strides",
        CONV + "pad=1\ndilation=2\nstride_x=2\nstride_y=1\n" + LINEAR,
        [(6,), (6, 4, 3, 3)],
        lambda x, b, w: functional.conv2d(x, w, b, (1, 2), 1, 2),
    ),
    (
        "some channels of what two layers give",
        "[maxpool]\nsize=1\nstride=1\n[route]\nlayers=0,0\ngroups=2\ngroup_id=1\n",
        [],
        lambda x: torch.cat([x[:, 2:]] * 2, 1),
    ),
    (
        "a convolution whose weights are flipped",
        CONV + "flipped=1\n" + LINEAR,
        [(6,), (36, 6)],
        lambda x, b, w: functional.conv2d(x, w.T.reshape(6, 4, 3, 3), b),
    ),
    (
        "a normalised convolution",
        CONV + "batch_normalize=1\nactivation=leaky\n",
        [(6,), (6,), (6,), (6,), (6, 4, 3, 3)],
        lambda x, b, s, m, v, w: functional.leaky_relu(
            normed(functional.conv2d(x, w), s, m, (v + 1e-5).sqrt(), b), 0.1
        ),
    ),
    (
        "a transposed convolution",
        "[deconvolutional]\nfilters=6\nsize=4\nstride=2\npadding=1\n" + LINEAR,
        [(6,), (4, 6, 4, 4)],
        lambda x, b, w: functional.conv_transpose2d(x, w, b, 2, 1),
    ),
    (
        "a dense layer",
        "[connected]\noutput=5\nactivation=tanh\n",
        [(5,), (5, 224)],
        lambda x, b, w: functional.linear(x.flatten(1), w, b).tanh(),
    ),
    (
        "a normalised dense layer",
        "[connected]\noutput=5\nbatch_normalize=1\n" + LINEAR,
        [(5,), (5, 224), (5,), (5,), (5,)],
        lambda x, b, w, s, m, v: (
            (functional.linear(x.flatten(1), w) - m) / (v + 1e-5).sqrt() * s + b
        ),
    ),
    *(
        (
            f"pools of {size}, {stride} apart, padded by {padding}",
            f"[maxpool]\nsize={size}\nstride={stride}\n"
            + (f"padding={padding}\n" if padding is not None else ""),
            [],
            lambda x, k=size, s=stride, p=padding: darknets_maximum(
                x, k, s, k - 1 if p is None else p
            ),
        )
        for size, stride, padding in (
            (2, 2, None),
            (2, 1, None),
            (3, 2, None),
            (3, 2, 0),
            (5, 1, None),
        )
    ),
    ("means of all", "[avgpool]\n", [], lambda x: x.mean((2, 3), keepdim=True)),
    (
        "means that do not count their padding",
        "[local_avgpool]\nsize=3\nstride=1\n",
        [],
        lambda x: functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
    ),
    ("probabilities", "[avgpool]\n[softmax]\n", [], lambda x: x.mean((2, 3)).softmax(1)),
    (
        "probabilities of a cooler map",
        "[softmax]\nspatial=1\ntemperature=2\n",
        [],
        lambda x: (x / 2).softmax(1),
    ),
    (
        "an upsampled map",
        "[upsample]\nstride=2\nscale=3\n",
        [],
        lambda x: 3 * functional.interpolate(x, scale_factor=2),
    ),
    (
        "a shortcut and a route",
        "[activation]\nactivation=elu\n[activation]\nactivation=mish\n"
        "[shortcut]\nfrom=-2\nactivation=swish\n[route]\nlayers=-1,0\n",
        [],
        lambda x: torch.cat(
            [
                functional.silu(functional.elu(x) + functional.mish(functional.elu(x))),
                functional.elu(x),
            ],
            1,
        ),
    ),
    (
        "channels scaled by a vector",
        "[activation]\nactivation=relu6\n[avgpool]\n[scale_channels]\nfrom=0\n",
        [],
        lambda x: x.clamp(0, 6) * x.clamp(0, 6).mean((2, 3), keepdim=True),
    ),
    (
        "a product of maps",
        "[activation]\nactivation=hardtan\n[activation]\nactivation=relie\n[sam]\nfrom=0\n",
        [],
        lambda x: x.clamp(-1, 1) * functional.leaky_relu(x.clamp(-1, 1), 0.01),
    ),
    (
        "dropout and costs, which do nothing",
        "[logistic]\n[dropout]\nprobability=.5\n[cost]\ntype=sse\n",
        [],
        torch.sigmoid,
    ),
]


@pytest.mark.parametrize(
    ("text", "shapes", "meaning"),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
def test_a_layer_computes(tmp_path: Path, text: str, shapes: Shapes, meaning: Meaning) -> None:
    foreign = net(tmp_path, text, shapes)
    x = images(foreign)
    weights = [torch.from_numpy(each).double() for each in drawn(shapes)]
    expected = meaning(torch.from_numpy(x).double(), *weights).numpy()
    (found,) = outputs(foreign, x)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_the_original_on_a_cpu_adds_to_the_root(tmp_path: Path) -> None:
    """Which of two epsilons counts where a variance is small."""
    shapes = [(6,), (6,), (6,), (6,), (6, 4, 3, 3)]
    bias, scale, mean, variance, weight = drawn(shapes)
    arrays = [bias, scale, mean, variance * np.float32(1e-8), weight]
    definition = written(tmp_path, "net.cfg", NET + CONV + "batch_normalize=1\n" + LINEAR)
    weights = written(tmp_path, "net.weights", darknet_weights(arrays))
    for on_a_cpu in (False, True):
        foreign = read_darknet(definition, weights, beside_the_root=on_a_cpu)
        x = images(foreign)
        b, s, m, v, w = (torch.from_numpy(each).double() for each in arrays)
        root = v.sqrt() + 1e-6 if on_a_cpu else (v + 1e-5).sqrt()
        product = functional.conv2d(torch.from_numpy(x).double(), w)
        expected = normed(product, s, m, root, b).numpy()
        np.testing.assert_allclose(outputs(foreign, x)[0], expected, rtol=1e-4, atol=1e-4)
        told = "√v + 1e-6" if on_a_cpu else "√(v + 1e-5)"
        assert any(told in note for note in foreign.notes)


# ---------------------------------------------------------------- whole nets and their files


def test_the_published_vgg16_is_read_without_its_weights(tmp_path: Path) -> None:
    foreign = read_darknet(written(tmp_path, "vgg-16.cfg", VGG16_CFG))
    kinds = [node.op_type for node in foreign.model.graph.node]
    assert [kinds.count(each) for each in ("Conv", "MaxPool", "Gemm", "Dropout")] == [13, 5, 3, 2]
    assert images(foreign).shape == (1, 3, 224, 224)
    weights = [each for name, each in foreign.tensors.items() if name[-5:] != "ratio"]
    assert sum(each.size for each in weights) == 138_357_544
    assert not foreign.has_weights


def test_a_small_vgg16_computes(tmp_path: Path) -> None:
    text = VGG16_CFG.replace("224", "32")
    for width in (512, 256, 128, 64, 4096, 1000):
        text = text.replace(f"={width}\n", f"={width // 32}\n")
    text = text.replace("height=8\nwidth=8", "height=40\nwidth=40")
    arrays = vgg16_arrays(divisor=32, side=1)
    flat = (each for weight, bias in arrays.values() for each in (bias, weight))
    foreign = read_darknet(
        written(tmp_path, "vgg-16.cfg", text),
        written(tmp_path, "vgg-16.weights", darknet_weights(flat)),
    )
    x = images(foreign)
    np.testing.assert_allclose(outputs(foreign, x)[0], vgg16_of(arrays, x), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("version", [(0, 1, 0), (0, 2, 0), (0, 2, 5), (1001, 0, 0)], ids=str)
def test_each_version_of_the_header_is_known(tmp_path: Path, version: tuple[int, int, int]) -> None:
    """One of a thousand and more means that dense weights are transposed."""
    bias, weight = drawn([(5,), (5, 224)])
    stored = weight.T if version[0] > 1000 else weight
    definition = written(tmp_path, "net.cfg", NET + "[connected]\noutput=5\n" + LINEAR)
    weights = written(tmp_path, "net.weights", darknet_weights([bias, stored], version))
    foreign = read_darknet(definition, weights)
    x = images(foreign)
    expected = x.reshape(1, -1).astype(np.float64) @ weight.T + bias
    np.testing.assert_allclose(outputs(foreign, x)[0], expected, rtol=1e-5, atol=1e-5)


def test_comments_spaces_and_repeated_keys_are_read_as_darknet_does(tmp_path: Path) -> None:
    text = "; a comment\n [ convolutional ]\r\n filters = 6 # six\nsize=1\nfilters=9\n" + LINEAR
    foreign = net(tmp_path, text, [(6,), (6, 4, 1, 1)])
    assert foreign.tensors["convolutional0.weight"].shape == (6, 4, 1, 1)


def test_pictures_are_from_0_to_1_unless_a_crop_adjusts_them(tmp_path: Path) -> None:
    def found(text: str) -> Preprocessing:
        how = net(tmp_path, text, []).facts.preprocessing
        assert how is not None
        return how

    crop = "[crop]\ncrop_height=6\ncrop_width=6\n"
    plain = found("[avgpool]\n")
    assert (plain.size, plain.scale) == ((8, 7), None)
    assert (plain.mean, plain.std) == ((0.0,) * 4, (1.0,) * 4)
    adjusted = found(crop + "[avgpool]\n")
    assert (adjusted.size, adjusted.scale) == ((6, 6), 7)
    assert (adjusted.mean, adjusted.std) == ((0.5,) * 4, (0.5,) * 4)
    assert found(crop + "noadjust=1\n[avgpool]\n").mean == (0.0,) * 4


# ---------------------------------------------------------------- mistakes


def mistake(tmp_path: Path, text: str, shapes: Shapes = ()) -> str:
    with pytest.raises(UserError) as caught:
        net(tmp_path, text, shapes)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        *(
            (f"[{kind}]\n", f"vggc has no word for [{kind}]")
            for kind in (
                "yolo",
                "region",
                "detection",
                "rnn",
                "lstm",
                "local",
                "reorg",
                "batchnorm",
            )
        ),
        ("[lrn]\n", "no word for [normalization]"),
        ("[nothing]\n", "no word for [nothing]"),
        (CONV + "xnor=1\n", "no word for [convolutional] with `xnor`"),
        (CONV + "activation=loggy\n", "the activation `loggy`"),
        (CONV + "activation=leeky\n", "did you mean `leaky`?"),
        (CONV + "groups=4\n", "4 channels to 6, in 4 groups"),
        ("[convolutional]\nsize=9\n", "would be of 1×1×0×-1"),
        ("[convolutional]\nfilters=many\n", "`filters` is a whole number"),
        ("[convolutional]\nfilters=9999999999999\n", "`filters` is a whole number"),
        ("[route]\nlayers=-1\n", "there is no layer -1 to read"),
        ("[avgpool]\n[route]\nlayers=0,1\n", "there is no layer 1 to read"),
        ("[avgpool]\n[route]\n", "[route] has no `layers`"),
        ("[avgpool]\n[route]\nlayers=a\n", "`layers` is whole numbers"),
        ("[avgpool]\n[route]\nlayers=0\ngroups=3\n", "4 channels come in, in 3 groups"),
        ("[avgpool]\n[shortcut]\nfrom=9\n", "there is no layer 9 to read"),
        ("[avgpool]\n[crop]\n", "[crop] behind another layer"),
        ("[crop]\ncrop_height=9\ncrop_width=1\n", "[crop] is larger than the net's pictures"),
        ("[softmax]\ngroups=2\n", "[softmax] in groups"),
        ("[softmax]\ntree=a.tree\n", "[softmax] over a tree"),
        ("[convolutional\n", "expected a section"),
        ("filters\n", "this is no definition of Darknet's"),
        ("", "the net has no layers"),
    ],
)
def test_what_cannot_be_said_is_told_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    problem = mistake(tmp_path, text)
    assert told in problem
    assert f" --> {tmp_path}/net.cfg:" in problem


@pytest.mark.parametrize("text", ["", "a=1\n", "[convolutional]\n", "[net]\n[avgpool]\n"])
def test_a_net_begins_with_its_own_section_and_reads_pictures(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError):
        read_darknet(written(tmp_path, "net.cfg", text))


@pytest.mark.parametrize(
    ("shapes", "told"),
    [
        ([(6,), (5, 4, 3, 3)], "it ends in `convolutional0`, 144 bytes too early"),
        ([(6,), (6, 4, 3, 3), (1,)], "4 bytes are left over behind the last layer"),
    ],
)
def test_weights_of_another_net_are_refused(tmp_path: Path, shapes: Shapes, told: str) -> None:
    assert told in mistake(tmp_path, CONV, shapes)


@pytest.mark.parametrize("head", [b"", b"12345678", struct.pack("<iii", 0, 2, 0)])
def test_a_file_without_a_header_is_refused(tmp_path: Path, head: bytes) -> None:
    definition = written(tmp_path, "net.cfg", NET + CONV)
    with pytest.raises(UserError, match="no header of Darknet's weights"):
        read_darknet(definition, written(tmp_path, "net.weights", head))
