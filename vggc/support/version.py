"""The version of vggc, for the packages that write it down."""

__version__ = "0.1.0"
