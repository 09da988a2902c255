"""vggc: a declarative graph compiler and model zoo for VGG-like networks."""

from vggc.support.version import __version__ as __version__
