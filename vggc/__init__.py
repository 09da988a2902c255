"""vggc: a declarative graph compiler and model zoo for VGG-like networks."""

__version__ = "0.1.0"
