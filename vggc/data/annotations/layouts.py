"""Which annotated pictures lie in a place, seen from what its folders and files are called, and
from what tables and JSON files hold.

The first format that fits is the one that is read.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vggc.data import diagnostics
from vggc.data.annotations.coco import KEYS
from vggc.data.annotations.sources import (
    AnnotationSource,
    CocoSource,
    TableSource,
    VocSource,
    YoloSource,
)
from vggc.data.annotations.table import columns_of
from vggc.data.annotations.yolo import NAME_FILES
from vggc.data.listing import ending_of, folders_in, has_images, holds, is_image, visible, walk
from vggc.data.split import DEPTH, NamedPart, PartPlace, Parts, shown
from vggc.data.usual import USUAL, roles_of, usual_name, words_of
from vggc.support.diagnostics import UserError
from vggc_runtime.files import open_file

PICTURES = ("jpegimages", "images", "image", "imgs", "img", "photos", "pictures")
ANNOTATIONS = ("annotations", "annotation", "annots", "xmls", "xml", "labels", "label")
LABELS = ("labels", "label", "annotations", "annotation")
"""What folders of pictures and of annotations are called, in small letters, in order."""

VOC_YEAR = re.compile(r"VOC[0-9]{4}", re.IGNORECASE)
CHUNK = 1 << 20
MAX_LINE = 1 << 16
"""The most bytes of a table's first line."""


@dataclass(frozen=True)
class NamedSource:
    """A source of annotated pictures, and what their part is called, if it is called anything."""

    name: str
    source: AnnotationSource


@dataclass(frozen=True)
class Contents:
    """What lies right in a folder: folders by their names in small letters, and names of files."""

    folder: Path
    folders: dict[str, Path]
    files: tuple[str, ...]

    @classmethod
    def at(cls, folder: Path) -> Contents:
        """A look into a folder.

        Raises:
            OSError: it cannot be read.
        """
        folders, files = {}, []
        for entry in sorted(visible(folder), key=lambda each: each.name):
            is_link = entry.is_symlink()
            if os.path.isdir(entry.path) if is_link else entry.is_dir(follow_symlinks=False):
                folders[entry.name.lower()] = folder / entry.name
            else:
                files.append(entry.name)
        return cls(folder, folders, tuple(files))

    def pick(self, names: Sequence[str]) -> Path | None:
        """The first folder there is that is called so."""
        return next((self.folders[name] for name in names if name in self.folders), None)

    def ending(self, *endings: str) -> list[Path]:
        """The files whose names end so."""
        return [self.folder / name for name in self.files if ending_of(name) in endings]

    @property
    def has_pictures(self) -> bool:
        """Whether pictures lie right in the folder."""
        return any(map(is_image, self.files))


def annotated_at(place: Path, known: Sequence[str] = ()) -> Parts | AnnotationSource | None:
    """The annotated pictures in a folder, or those that a file tells of: in parts, or all in one.
    Folders that all have names of `known` classes are those.

    Raises:
        UserError: there are several sets, and nothing tells them apart.
        OSError: a folder cannot be read.
    """
    if place.is_file():
        return told_by(place)
    if not place.is_dir():
        return None
    for folder in unpacked(place):
        look = Contents.at(folder)
        if look.folders and {child.name for child in look.folders.values()} <= {*known}:
            return None
        if found := found_in(look) or in_parts(look) or apart(look):
            return assembled(look, found)
        years = [child.name for child in look.folders.values() if VOC_YEAR.fullmatch(child.name)]
        if len(years) > 1:
            raise UserError(diagnostics.SeveralSets(str(folder), shown(years), years[0]))
    return None


def unpacked(folder: Path) -> Iterator[Path]:
    """A folder and, as archives are packed in one of their own, the only one that it holds.

    Raises:
        OSError: a folder cannot be read.
    """
    for _ in range(DEPTH):
        yield folder
        children = folders_in(folder)
        if len(children) != 1 or holds(folder) == "both":
            return
        folder = children[0]


def assembled(look: Contents, found: Sequence[NamedSource]) -> Parts | AnnotationSource:
    """The parts that were found in a folder, or all in one.

    Raises:
        UserError: there are several that are not called as parts are.
    """
    roles = roles_of(each.name for each in found)
    if len(found) == 1 and not roles:
        return found[0].source
    named = {os.path.relpath(each.source.place, look.folder): each for each in found}
    if not roles:
        names = [*named]
        raise UserError(diagnostics.SeveralSets(str(look.folder), shown(names), names[0]))
    parts = [
        NamedPart(PartPlace(name, source=each.source), roles[each.name], "images", annotated=True)
        for name, each in named.items()
        if each.name in roles
    ]
    others = [name for name, each in named.items() if each.name not in roles]
    bare = {os.path.relpath(folder, look.folder): folder for folder in bare_folders(look, found)}
    called = roles_of(folder.name for folder in bare.values())
    parts += [
        NamedPart(PartPlace(name), called[folder.name], "images", annotated=False)
        for name, folder in bare.items()
        if folder.name in called
    ]
    if not any(each.source.is_file for each in found):
        others += [f"{name}/" for name, folder in bare.items() if folder.name not in called]
    return Parts(str(look.folder), tuple(parts), tuple(others))


def bare_folders(look: Contents, found: Sequence[NamedSource]) -> Iterator[Path]:
    """The folders that parts may be in, and that hold pictures without annotations."""
    used = {path for each in found for path in above(each.source.pictures)}
    folders = [*look.folders.values()]
    if inner := look.pick(PICTURES):
        folders += folders_in(inner)
    for folder in folders:
        if folder not in used and folder.name.lower() not in ANNOTATIONS and has_images(folder):
            yield folder


def absolute(path: Path) -> Path:
    """A path from the root, without steps back."""
    return Path(os.path.abspath(path))


def above(folder: Path) -> Iterator[Path]:
    """A folder and those that it lies in."""
    yield folder
    yield from folder.parents


# What lies in a folder


def found_in(look: Contents) -> list[NamedSource]:
    """The annotated pictures of one format."""
    finders: tuple[Callable[[Contents], list[NamedSource]], ...] = (ilsvrc, voc, coco, yolo, tables)
    return next(filter(None, (finder(look) for finder in finders)), [])


def in_parts(look: Contents) -> list[NamedSource]:
    """The annotated pictures in folders that are called as parts are."""
    folders = [*look.folders.values()]
    roles = roles_of(folder.name for folder in folders)
    found = []
    for part in folders:
        if part.name in roles:
            inner = (found_in(Contents.at(folder)) for folder in unpacked(part))
            if first := next(filter(None, inner), None):
                found.append(NamedSource(part.name, first[0].source))
    return found


def apart(look: Contents) -> list[NamedSource]:
    """The pictures of a folder such as `images/val`, whose annotations lie in `labels/val`."""
    if not look.has_pictures:
        return []
    for folder in above(absolute(look.folder)):
        inner = absolute(look.folder).relative_to(folder)
        if len(inner.parts) > 2:
            return []
        if folder.name.lower() not in (*PICTURES, "data"):
            continue
        for other in Contents.at(folder.parent).folders.values():
            there = other / inner
            if other.name.lower() in ANNOTATIONS and there.is_dir():
                if has_file(there, ".xml"):
                    return [NamedSource("", VocSource(look.folder, there))]
                if has_file(there, ".txt"):
                    return [NamedSource("", YoloSource(look.folder, there, names_for(there)))]
    return []


def ilsvrc(look: Contents) -> list[NamedSource]:
    """ILSVRC's folders, with the lists of pictures that have boxes."""
    pictures, annotations = (look.folder / name / "CLS-LOC" for name in ("Data", "Annotations"))
    if not pictures.is_dir() or not annotations.is_dir():
        return []
    lists = look.folder / "ImageSets" / "CLS-LOC"
    found = []
    for part in folders_in(pictures):
        names = (lists / f"{part.name}{which}.txt" for which in ("_loc", "", "_cls"))
        listed = next((path for path in names if path.is_file()), None)
        if (inner := annotations / part.name).is_dir():
            source = VocSource(part, inner, listed, sparse=True)
            found.append(NamedSource(part.name, source))
    return found


def voc(look: Contents) -> list[NamedSource]:
    """Pascal VOC's folders, or XML files beside pictures."""
    pictures, annotations = look.pick(PICTURES), look.pick(ANNOTATIONS)
    if annotations is None or not has_file(annotations, ".xml"):
        is_beside = look.has_pictures and are_beside(look, ".xml")
        return [NamedSource("", VocSource(look.folder, look.folder))] if is_beside else []
    if pictures is None:
        return [NamedSource("", VocSource(look.folder, annotations))] if look.has_pictures else []
    if lists := lists_in(look):
        return [NamedSource(path.stem, VocSource(pictures, annotations, path)) for path in lists]
    found = []
    for part in parts_in(pictures):
        inner = annotations / part.name
        found.append(
            NamedSource(part.name, VocSource(part, inner if inner.is_dir() else annotations))
        )
    return found or [NamedSource("", VocSource(pictures, annotations))]


def lists_in(look: Contents) -> list[Path]:
    """The files that list the pictures of parts. One of both parts is none beside one to train on.

    Raises:
        OSError: a folder cannot be read.
    """
    top = look.pick(("imagesets",))
    if top is None:
        return []
    for folder in (top / "Main", top):
        if folder.is_dir():
            texts = [path for path in sorted(folder.glob("*.txt")) if path.stat().st_size]
            roles = {path: USUAL[name] for path in texts if (name := usual_name(path.stem))}
            only = [path for path, each in roles.items() if len(each) == 1]
            if only and any("train" in roles[path] for path in only):
                return only
            if roles:
                return [*roles]
    return []


def coco(look: Contents) -> list[NamedSource]:
    """Files of COCO's form, in the folder or in one for annotations."""
    inner = look.pick(ANNOTATIONS)
    files = look.ending(".json") + (Contents.at(inner).ending(".json") if inner else [])
    told = [path for path in files if path.name.startswith("instances")]
    told = told or [path for path in files if "coco" in path.name.lower()]
    told = told or [path for path in files if holds_lists(path)]
    return owned([NamedSource(name_of(path), coco_at(path, look)) for path in told])


def name_of(path: Path) -> str:
    """What the part that a file tells of is called."""
    return path.stem.removeprefix("instances_")


def coco_at(path: Path, look: Contents) -> CocoSource:
    """What a file of COCO's form is read with, of pictures in a folder."""
    return CocoSource(pictures_for(name_of(path), look), path, own=False)


def table_at(path: Path, look: Contents) -> TableSource:
    """What a table is read with, of pictures in a folder."""
    return TableSource(pictures_for(name_of(path), look), path, own=False)


def pictures_for(name: str, look: Contents) -> Path:
    """The folder of the pictures of a part: one of its name or for its use, else one for pictures,
    else the folder itself.
    """
    inner = look.pick(PICTURES)
    looks = [look, *([Contents.at(inner)] if inner else [])]
    for each in looks:
        if name.lower() in each.folders:
            return each.folders[name.lower()]
    words = {word for word in map(usual_name, (name, *words_of(name))) if word}
    for each in looks:
        for folder in each.folders.values():
            if (usual := usual_name(folder.name)) and USUAL[usual] in map(USUAL.get, words):
                return folder
    return inner or look.folder


def owned(found: Sequence[NamedSource]) -> list[NamedSource]:
    """Sources of one file each, which know whether others share their pictures."""
    counts = Counter(each.source.pictures for each in found)
    return [
        NamedSource(each.name, replace(each.source, own=counts[each.source.pictures] == 1))
        for each in found
        if isinstance(each.source, CocoSource | TableSource)
    ]


def holds_lists(path: Path) -> bool:
    """Whether a JSON file is likely one of COCO's form: it names the lists, and boxes."""
    wanted = {f'"{key}"'.encode() for key in (*KEYS, "bbox")}
    try:
        with open_file(path) as file:
            last = b""
            while wanted and (content := file.read(CHUNK)):
                wanted = {key for key in wanted if key not in last + content}
                last = content[-20:]
    except OSError:
        return False
    return not wanted


def yolo(look: Contents) -> list[NamedSource]:
    """YOLO's folders, or its text files beside pictures and a list of classes."""
    pictures, labels = look.pick(PICTURES), look.pick(LABELS)
    if pictures and labels and has_file(labels, ".txt"):
        names = names_for(labels)
        found = [
            NamedSource(part.name, YoloSource(part, labels / part.name, names))
            for part in parts_in(pictures)
            if (labels / part.name).is_dir()
        ]
        return found or [NamedSource("", YoloSource(pictures, labels, names))]
    if look.has_pictures and are_beside(look, ".txt") and (names := names_for(look.folder)):
        return [NamedSource("", YoloSource(look.folder, look.folder, names))]
    return []


def names_for(folder: Path) -> Path | None:
    """The file that names the classes of YOLO's labels: in their folder or, while that is called as
    a part or a folder of labels or pictures is, in those around it.
    """
    for _ in range(3):
        look = Contents.at(folder)
        by_name = {name.lower(): folder / name for name in look.files}
        yaml = look.ending(".yaml", ".yml")
        told = [by_name[name] for name in ("data.yaml", "data.yml") if name in by_name]
        told += [path for path in yaml if path not in told and has_names(path)]
        told += [by_name[name] for name in NAME_FILES if name in by_name]
        told += look.ending(".names")
        if told:
            return told[0]
        words = {folder.name.lower(), *words_of(folder.name)}
        if not words & {*PICTURES, *LABELS} and not any(map(usual_name, words)):
            return None
        folder = absolute(folder).parent
    return None


def has_names(path: Path) -> bool:
    """Whether a YAML file is likely one that names classes."""
    try:
        with open_file(path) as file:
            return re.search(rb"^names[ \t]*:", file.read(CHUNK), re.M) is not None
    except OSError:
        return False


def tables(look: Contents) -> list[NamedSource]:
    """Tables of boxes, in the folder or in one for annotations."""
    inner = look.pick((*ANNOTATIONS, "data"))
    looks = [look, *([Contents.at(inner)] if inner else [])]
    told = [path for each in looks for path in each.ending(".csv", ".tsv") if is_table(path)]
    return owned([NamedSource(name_of(path), table_at(path, look)) for path in told])


def is_table(path: Path) -> bool:
    """Whether a file is a table that tells of boxes, by its first line."""
    try:
        with open_file(path) as file:
            line = file.readline(MAX_LINE).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return False
    return columns_of(line.strip()) is not None


def parts_in(folder: Path) -> list[Path]:
    """The folders in a folder that are called as parts are; none where pictures lie beside them."""
    look = Contents.at(folder)
    roles = roles_of(child.name for child in look.folders.values())
    if look.has_pictures:
        return []
    return [child for child in look.folders.values() if child.name in roles]


def has_file(folder: Path, ending: str) -> bool:
    """Whether a file whose name ends so lies anywhere below a folder."""
    return any(ending_of(entry.name) == ending for entry, _ in walk(folder))


def are_beside(look: Contents, ending: str) -> bool:
    """Whether a file of this ending lies right beside a picture of the same name."""
    stems = {os.path.splitext(name)[0] for name in look.files if ending_of(name) == ending}
    return any(is_image(name) and os.path.splitext(name)[0] in stems for name in look.files)


# What a file tells of


def told_by(path: Path) -> Parts | AnnotationSource | None:
    """The annotated pictures of one part that a user names by a file: COCO's JSON, a table, a list
    of Pascal VOC's or ILSVRC's. YOLO's YAML stands for the folder around it.

    Raises:
        UserError, OSError: as `annotated_at`.
    """
    folder = absolute(path).parent
    base = folder.parent if folder.name.lower() in (*ANNOTATIONS, "data") else folder
    match path.suffix.lower():
        case ".json":
            return coco_at(path, Contents.at(base))
        case ".csv" | ".tsv" if is_table(path):
            return table_at(path, Contents.at(base))
        case ".txt":
            return listed_by(path)
        case ".yaml" | ".yml":
            return annotated_at(folder)
        case _:
            return None


def listed_by(path: Path) -> VocSource | None:
    """The pictures that a list in a folder `ImageSets` names."""
    top = next((each for each in absolute(path).parents if each.name.lower() == "imagesets"), None)
    if top is None:
        return None
    sources = [each.source for each in found_in(Contents.at(top.parent))]
    lists = [each for each in sources if isinstance(each, VocSource) and each.listed]
    for each in lists:
        if each.listed and absolute(each.listed) == absolute(path):
            return each
    folders = {(each.pictures, each.annotations) for each in lists}
    return replace(lists[0], listed=path) if len(folders) == 1 else None
