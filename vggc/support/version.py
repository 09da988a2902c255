"""The version of vggc, for those of its rooms that write it down."""

__version__ = "0.1.0"
