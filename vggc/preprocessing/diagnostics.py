"""What can be wrong with the preprocessing that somebody names."""

from __future__ import annotations

from vggc.support.diagnostics import Diagnostic


class UnknownPreset(Diagnostic):
    title = "there is no preprocessing `{word}`"
    label = "it is neither a preset nor a file; {hint}"
    help = "docs/importing.md says what presets do, and what a file may say"

    word: str
    hint: str


class PresetOfColours(Diagnostic):
    title = "the preset `{preset}` is for nets that take three colours"
    label = "this net takes {channels}"
    help = "take `unit`, or write what this net takes to a file: docs/importing.md"

    preset: str
    channels: str


class PreprocessingFile(Diagnostic):
    title = "cannot take the preprocessing from {path}"
    label = "{reason}"
    help = "{hint}"

    path: str
    reason: str
    hint: str = "docs/importing.md says which keys such a file has"
