"""What each kernel of an artifact gives, for a process that finds an emulated GPU:
`python -m tests.support.emulated_values ARTIFACT IMAGES.npy VALUES.npz`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from vggc.measure.verify import as_nchw, real, scales_in
from vggc.runtime.session import Session


def main() -> None:
    artifact, images, target = map(Path, sys.argv[1:])
    x, session = np.load(images), Session.load(artifact)
    plan = session.plans[session.manifest.entry_for(len(x)).name]
    scales = scales_in(artifact, plan)
    found = {
        str(index): as_nchw(real(value, plan, index, scales), plan.steps[index].output)
        for index, value in enumerate(session.layers(x))
    }
    np.savez(target, **found)


if __name__ == "__main__":
    main()
