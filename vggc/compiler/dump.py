"""What each stage of compiling made, written to a folder: `vggc compile --dump DIR`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from vggc.compiler.listing import aligned
from vggc.compiler.pipeline import STAGES, Pages, StageName
from vggc.support.diagnostics import UserError
from vggc.support.files import CannotWrite, new_file, refuse_taken

SECONDS = "seconds.txt"


@dataclass
class Dump:
    """Watches a compilation and writes a folder for each stage, such as `03-plan`, and the seconds
    of all of them.

    Where compiling ends in an error, what was made until then is there.
    """

    folder: Path
    seconds: dict[StageName, float] = field(default_factory=dict)

    def begin(self) -> None:
        """Makes the folder to write to.

        Raises: UserError where there is something already, or no folder can be made.
        """
        refuse_taken(self.folder)
        self._make(self.folder)

    def __call__(self, stage: StageName, seconds: float, pages: Callable[[], Pages]) -> None:
        self.seconds[stage] = seconds
        made = pages()
        place = self.folder / f"{STAGES.index(stage) + 1:02}-{stage}"
        if made:
            self._make(place)
        for name, text in made.items():
            with new_file(place / name) as file:
                file.write_text(text, "utf-8")

    def end(self) -> None:
        """Writes how long the stages took."""
        rows = [(name, f"{seconds:.3f}") for name, seconds in self.seconds.items()]
        whole = ("all", f"{sum(self.seconds.values()):.3f}")
        with new_file(self.folder / SECONDS) as file:
            file.write_text(aligned(("stage", "seconds"), [*rows, whole]), "utf-8")

    def _make(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True)
        except OSError as fault:
            raise UserError(CannotWrite(str(folder), str(fault.strerror))) from None
