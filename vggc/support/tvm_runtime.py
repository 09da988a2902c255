"""TVM without its compiler, for a process that only runs compiled nets.

Importing this before anything else of TVM loads its runtime alone, 5 MB of libraries in
place of 260. In a process that has the compiler already, nothing changes.
"""

from __future__ import annotations

import os
import sys

ASKED = "TVM_USE_RUNTIME_LIB"

if "tvm" not in sys.modules:
    # TVM looks at this once, when it is imported; processes that this one starts decide anew.
    before = os.environ.get(ASKED)
    os.environ[ASKED] = "1"
    import vggc.support.tvm_alone  # noqa: F401

    if before is None:
        del os.environ[ASKED]
    else:
        os.environ[ASKED] = before
