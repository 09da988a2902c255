"""Compiled nets without their compiler: what an artifact for a CPU needs where it runs, numpy and,
once it is given a picture, Pillow.

    import vggc_runtime

    net = vggc_runtime.load("artifacts/vgg16-cpu")
    net.classify("cat.jpg")            # [("tabby", 0.57), …]
    net(net.prepared("cat.jpg"))       # {"prob": array of shape (1, 1000)}
"""

from importlib import import_module

from vggc_runtime.version import __version__ as __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vggc_runtime.artifact import Net as Net
    from vggc_runtime.artifact import load as load
    from vggc_runtime.errors import ArtifactError as ArtifactError
    from vggc_runtime.outputs import Output as Output

_PLACES = {
    "Net": "vggc_runtime.artifact",
    "load": "vggc_runtime.artifact",
    "ArtifactError": "vggc_runtime.errors",
    "Output": "vggc_runtime.outputs",
}
"""Where each name is, which is imported when somebody asks for it: vggc uses parts of this package,
most of them without numpy."""

__all__ = ["__version__", *_PLACES]


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module 'vggc_runtime' has no attribute {name!r}")
    value: object = getattr(import_module(_PLACES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
