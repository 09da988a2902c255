"""How TVM comes into vggc."""

from __future__ import annotations

import pytest

from vggc.support.tvm_alone import tvm


def test_ctrl_c_in_what_tvm_calls_stays_one() -> None:
    @tvm.transform.module_pass(opt_level=0)
    def interrupted(module: tvm.IRModule, context: object) -> tvm.IRModule:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tvm.ir.transform.Sequential([interrupted])(tvm.IRModule({}))
