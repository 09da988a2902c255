"""What can be wrong with an artifact, or with what it is given."""

from __future__ import annotations

from pathlib import Path

from vggc_runtime.text import in_line


class ArtifactError(Exception):
    """Why an artifact cannot be opened or run, or why something is no input for it, in one line: a
    place, a reason, a suggestion.
    """

    def __init__(self, place: str | Path, reason: str, suggestion: str) -> None:
        super().__init__(in_line(f"{place}: {reason}; {suggestion}"))
        self.place = place
        self.reason = reason
        self.suggestion = suggestion
