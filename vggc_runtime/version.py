"""The version of vggc and of vggc-runtime, for whoever writes it down."""

__version__ = "0.1.0"
