"""What annotated pictures are read from: their folder, and where their boxes stand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeAlias


@dataclass(frozen=True)
class VocSource:
    """One XML file a picture, as Pascal VOC and ILSVRC have them, somewhere below `annotations`,
    which may be the folder of the pictures itself. Where a file has them `listed`, only those
    pictures count. Of a `sparse` set many are not annotated, and are not meant to be.
    """

    kind: ClassVar[str] = "Pascal VOC's XML"

    pictures: Path
    annotations: Path
    listed: Path | None = None
    sparse: bool = False

    @property
    def place(self) -> Path:
        """The path by which a user may name the part."""
        return self.listed or self.pictures

    @property
    def is_file(self) -> bool:
        """Whether that is a file."""
        return self.listed is not None


@dataclass(frozen=True)
class YoloSource:
    """One text file a picture below `labels`; the `names` of classes stand in a file of their own,
    or nowhere.
    """

    kind: ClassVar[str] = "YOLO's text files"

    pictures: Path
    labels: Path
    names: Path | None

    @property
    def place(self) -> Path:
        """The path by which a user may name the part."""
        return self.pictures

    @property
    def is_file(self) -> bool:
        """Whether that is a file."""
        return False


@dataclass(frozen=True)
class OneFileSource:
    """One file for all pictures. Where these are not its `own`, it tells of some only."""

    pictures: Path
    file: Path
    own: bool

    @property
    def place(self) -> Path:
        """The path by which a user may name the part."""
        return self.file

    @property
    def is_file(self) -> bool:
        """Whether that is a file."""
        return True


@dataclass(frozen=True)
class CocoSource(OneFileSource):
    """One JSON file for all pictures."""

    kind: ClassVar[str] = "COCO's JSON"


@dataclass(frozen=True)
class TableSource(OneFileSource):
    """One CSV file for all pictures."""

    kind: ClassVar[str] = "a table"


AnnotationSource: TypeAlias = VocSource | YoloSource | CocoSource | TableSource
