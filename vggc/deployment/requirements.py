"""What is installed where a net is deployed: the versions that are installed here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, distribution

from vggc.deployment import diagnostics
from vggc.runtime.artifact import Target
from vggc.support.diagnostics import UserError
from vggc_runtime.version import __version__

RUNTIME = ("lark", "numpy", "pillow")
"""What runs any artifact, beside vggc: neither PyTorch nor anything else that trains."""

SERVER = (
    *("click", "rich", "starlette", "uvicorn", "httptools", "orjson", "prometheus-client"),
    "python-multipart",
)
"""What serves it by `vggc serve`."""

CUDA = ("apache-tvm", "apache-tvm-ffi", "nvidia-cuda-runtime")
"""What runs an artifact for GPUs besides."""

EXTRAS = dict.fromkeys(SERVER, "vggc[serve]") | dict.fromkeys(CUDA, "vggc[cuda]")
"""What brings a package that may be missing beside vggc."""

HEADER = """\
# What runs the net, and all that this needs, as it was installed where this file was written:
# pip install --no-deps -r requirements.txt
"""


def requirements(target: Target, more: Sequence[str] = ()) -> str:
    """A file for `pip install --no-deps`: this vggc, what runs an artifact for a target, more
    packages, and all that these need.

    Raises: UserError where one of the packages is not installed.
    """
    packages = (*RUNTIME, *(CUDA if target.kind == "cuda" else ()), *more)
    lines = (f"{name}=={version}\n" for name, version in sorted(installed(packages).items()))
    return "".join([HEADER, f"vggc=={__version__}\n", *lines])


def installed(packages: Iterable[str]) -> dict[str, str]:
    """The versions of packages, and of what they need without being asked for more.

    Raises: UserError where one of the packages is not installed.
    """
    found: dict[str, str] = {}
    for package in packages:
        if not _add(package, found):
            extra = EXTRAS.get(package, "vggc")
            raise UserError(diagnostics.NothingToPin(package, extra))
    return found


def _add(package: str, found: dict[str, str]) -> bool:
    """Adds a package and what it needs, as far as that is installed: what is not is for other
    systems. Tells whether the package itself is.
    """
    name = re.sub(r"[-_.]+", "-", package).lower()
    if name in found:
        return True
    try:
        known = distribution(name)
    except PackageNotFoundError:
        return False
    found[name] = known.version
    for line in known.requires or ():
        needed = re.match(r"[\w.-]+", line)
        if needed and "extra ==" not in line:
            _add(needed[0], found)
    return True
