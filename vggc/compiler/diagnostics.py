"""What can hinder a net from being compiled."""

from __future__ import annotations

from vggc.support.diagnostics import Diagnostic


class NoLinker(Diagnostic):
    title = "no C++ compiler was found to link the library with"
    label = "looked for {tried} on PATH"
    help = "install one, such as the package {package}, or name it in CXX"
    tried: str
    package: str


class NotLinked(Diagnostic):
    title = "{linker} does not link the library"
    label = "{reason}"
    help = "nothing was written; the variable CXX can name another C++ compiler"
    linker: str
    reason: str


class NoDeviceCode(Diagnostic):
    title = "no machine code could be made for the GPUs asked for"
    label = "{reason}"
    help = "{hint}"
    reason: str
    hint: str


class StandaloneForGpu(Diagnostic):
    title = "`--standalone` is for CPUs"
    label = "what launches kernels on the target {target} is TVM's runtime"
    help = "leave `--standalone` out, or compile with `--target cpu`"
    target: str


class MapTooLarge(Diagnostic):
    title = "a map of `{layer}` is too large for kernels"
    label = "at batch {batch} it has {values} values, and kernels count up to {most}"
    help = "{hint}"
    layer: str
    batch: int
    values: str
    most: str
    hint: str


class WeightTooLarge(Diagnostic):
    title = "the weight `{name}` is too large for {precision}"
    label = "its largest value is {largest}, and {precision} holds up to {most}"
    help = "{hint}"
    name: str
    precision: str
    largest: str
    most: str
    hint: str


class OtherWeights(Diagnostic):
    title = "{net} takes other weights for images of {size} pixels than for those of {main}"
    label = "only one of the two takes `{weight}`"
    help = "compile the net for each of the sizes by itself"
    net: str
    size: str
    main: str
    weight: str


class NoImages(Diagnostic):
    title = "there are no images in {path} to use"
    label = "{reason}"
    help = "give a folder of images like those that the net will see, such as .jpg or .png files"
    path: str
    reason: str


class NoCalibration(Diagnostic):
    title = "`--precision int8` needs images"
    label = "the ranges of a net's values are measured on images like those that it will see"
    help = "give a folder of a few hundred: `--calibrate DIR`"


class NotFinite(Diagnostic):
    title = "`{value}` is not finite on {image}"
    label = "no range holds it: the net's weights are too large"
    help = "give the weights of a training that did not diverge"
    value: str
    image: str


class NothingToCalibrate(Diagnostic):
    title = "`{option}` is for `--precision int8`"
    label = "{precision} has no ranges to measure"
    help = "leave `{option}` out, or compile with `--precision int8`"
    option: str
    precision: str


class DumpNotApart(Diagnostic):
    title = "the folder of `--dump` and that of the artifact lie one in the other"
    label = "{dump} and {artifact}: an artifact's folder is made whole, with nothing else in it"
    help = "give the stages a folder of their own: `--dump {suggestion}`"
    dump: str
    artifact: str
    suggestion: str


class GivenInVain(Diagnostic):
    title = "`{option}` has nothing to say here"
    label = "{reason}"
    help = "leave `{option}` out{hint}"
    option: str
    reason: str
    hint: str
