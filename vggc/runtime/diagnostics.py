"""What can be wrong with an artifact, or with what is done with it."""

from __future__ import annotations

from vggc.support.diagnostics import Diagnostic


class NoArtifact(Diagnostic):
    title = "{path} is not an artifact"
    label = "{reason}"
    help = "`vggc compile SPEC -o {path}` makes one"
    path: str
    reason: str


class OtherVersion(Diagnostic):
    title = "the artifact {path} is of another version"
    label = "it was made by {found}; this is {expected}"
    help = "compile the net again"
    path: str
    found: str
    expected: str


class FileGone(Diagnostic):
    title = "the artifact {path} has lost its file {file}"
    label = "nothing of it is loaded"
    help = "copy the artifact again, whole, or compile the net again"
    path: str
    file: str


class FileChanged(Diagnostic):
    title = "{file} in the artifact {path} is not the file that was compiled"
    label = "{reason}; nothing of it is loaded"
    help = "copy the artifact again, whole, or compile the net again"
    path: str
    file: str
    reason: str


class WrongMachine(Diagnostic):
    title = "the artifact {path} does not run on this machine"
    label = "{reason}"
    help = "{hint}"
    path: str
    reason: str
    hint: str


class BadInput(Diagnostic):
    title = "cannot use {path} as the net's input"
    label = "{reason}"
    help = "{hint}"
    path: str
    reason: str
    hint: str


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


class PeerMissing(Diagnostic):
    title = "cannot time against {peer}: it is not installed"
    label = "`import {module}` fails"
    help = "pip install 'vggc[bench]'"
    peer: str
    module: str


class PeerWithoutDevice(Diagnostic):
    title = "{peer} cannot use {device} here"
    label = "the artifact runs on {device}, and a peer on another device is no comparison"
    help = "leave {peer} out of --against, or install its build for {device}"
    peer: str
    device: str


class PeerWithoutImages(Diagnostic):
    title = "{peer} needs images to take the ranges of activations from"
    label = "it quantises the net after training"
    help = "give a folder of a few hundred: `--calibrate DIR`"
    peer: str


class PeerFailed(Diagnostic):
    title = "{peer} cannot compute this net here"
    label = "{reason}"
    help = "leave {peer} out of --against"
    peer: str
    reason: str


class LayersOfGpu(Diagnostic):
    title = "`--layers` times CPUs only"
    label = "the artifact {path} is for GPUs, whose kernels end some time after they are called"
    help = "use NVIDIA's profiler: `nsys profile vggc run {path} --input FILE`"
    path: str


class UnknownPeer(Diagnostic):
    title = "cannot time against `{peer}`"
    label = "unknown engine"
    help = "{hint}"
    peer: str
    hint: str


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


class WeightsElsewhere(Diagnostic):
    title = "the float32 weights of the artifact {path} are needed to verify it"
    label = "it holds them {held}, and {reason}"
    help = "give the file or the run that it was compiled from: `--weights FILE`"
    path: str
    held: str
    reason: str


class GivenInVain(Diagnostic):
    title = "`{option}` has nothing to say here"
    label = "{reason}"
    help = "leave `{option}` out{hint}"
    option: str
    reason: str
    hint: str
