"""Makes the machine code of a bundle anew, by the CUDA that is on the machine, where the driver
does not take what the bundle brings.
"""

from __future__ import annotations

import os
import subprocess
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from card.tables import REBUILT, SOURCES, Bundle


def rebuild(bundle: Bundle) -> list[str]:
    """Compiles all kernels; gives the names of those that do not compile.

    Raises: FileNotFoundError where there is no nvcc.
    """
    arch = bundle.tables.about["arch"]
    target = bundle.folder / REBUILT / "code"
    target.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as temporary:
        with zipfile.ZipFile(bundle.folder / SOURCES) as archive:
            archive.extractall(temporary)
        sources = sorted(Path(temporary).glob("*.cu"))

        def compiled(source: Path) -> bool:
            command = ["nvcc", "--cubin", f"-arch={arch}", "-w", str(source)]
            command += ["-o", str(target / source.stem)]
            return subprocess.run(command, capture_output=True).returncode == 0

        with ThreadPoolExecutor(os.cpu_count()) as compilers:
            done = list(compilers.map(compiled, sources))
    return [source.stem for source, well in zip(sources, done, strict=True) if not well]
