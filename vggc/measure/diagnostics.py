"""What can hinder an artifact from being compared or timed."""

from __future__ import annotations

from vggc.support.diagnostics import Diagnostic


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


class WeightsElsewhere(Diagnostic):
    title = "the float32 weights of the artifact {path} are needed to verify it"
    label = "it holds them {held}, and {reason}"
    help = "give the file or the run that it was compiled from: `--weights FILE`"
    path: str
    held: str
    reason: str
