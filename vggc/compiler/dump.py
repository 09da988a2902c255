"""What each stage of compiling made, written to a folder: `vggc compile --dump DIR`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from vggc.compiler.diagnostics import DumpNotApart
from vggc.compiler.listing import aligned
from vggc.compiler.pipeline import STAGES, Pages, StageName
from vggc.support.diagnostics import UserError, in_command
from vggc.support.files import CannotWrite, new_file, refuse_taken, refuse_unwritable

SECONDS = "seconds.txt"


@dataclass
class Dump:
    """Watches a compilation and writes a folder for each stage, such as `03-plan`, and the seconds
    of all of them.

    Where compiling ends in an error, what was made until then is there.
    """

    folder: Path
    seconds: dict[StageName, float] = field(default_factory=dict)

    def check(self, artifact: Path) -> None:
        """Looks at where all this is to be written, beside the folder of the artifact; the first
        stage makes it.

        Raises: UserError where there is something already, no folder can be made, or one of the
        folders would lie in the other.
        """
        mine, other = self.folder.resolve(), artifact.resolve()
        if mine.is_relative_to(other) or other.is_relative_to(mine):
            suggestion = in_command(f"{artifact}-stages")
            raise UserError(DumpNotApart(str(self.folder), str(artifact), suggestion))
        refuse_taken(self.folder)
        refuse_unwritable(self.folder)

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
