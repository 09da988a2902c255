"""From the sums of a convolution to what it writes: scale, bias, activation, the output's steps."""

from __future__ import annotations

from tvm.tirx import Expr
from tvm.tirx.script import builder as T

from vggc.kernels.activation import activate
from vggc.kernels.algorithm import Buffers
from vggc.kernels.cuda.emit import registers
from vggc.kernels.workloads import Conv


class ChannelResults:
    """What the sums of some channels that follow one another become, in registers of a thread.

    Results are floats, to be rounded to the output's format: of a uint8 output in steps of its
    scale.
    """

    def __init__(self, conv: Conv, buffers: Buffers, count: int) -> None:
        self._conv, self._count, self._bias = conv, count, buffers["bias"]
        self._biases = registers("biases", count)
        self._of_integers = conv.input.format == "uint8"
        if self._of_integers:
            self._scale, self._scales = buffers["scale"], registers("scales", count)
        self._in_steps = conv.output.format == "uint8"
        if self._in_steps:
            self._steps = registers("steps", 1)
            self._steps[0] = T.float32(1) / buffers["out_scale"][0]

    @property
    def _steps_first(self) -> bool:
        """Whether the steps may be multiplied before the activation, once for all pixels."""
        return self._in_steps and (self._conv.act is None or self._conv.act.homogeneous)

    def load(self, first: Expr) -> None:
        """Makes the channels those from the `first` on; of those that there are not, results are
        zero where sums are.
        """
        for index in range(self._count):
            here = first + index < self._conv.output.channels
            self._biases[index] = T.if_then_else(here, self._bias[first + index], T.float32(0))
            if self._of_integers:
                scale = T.if_then_else(here, self._scale[first + index], T.float32(0))
                self._scales[index] = scale
            if self._steps_first:
                self._biases[index] *= self._steps[0]
                self._scales[index] *= self._steps[0]

    def of(self, total: Expr, index: int) -> Expr:
        """The result of a sum, a float or an int32, of one of the channels."""
        if self._of_integers:
            total = T.Cast("float32", total) * self._scales[index]
        value = activate(self._conv.act, total + self._biases[index])
        return value * self._steps[0] if self._in_steps and not self._steps_first else value
