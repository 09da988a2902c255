"""Files that are neither weights nor nets are called what they are, wherever they are given."""

from __future__ import annotations

from pathlib import Path

import pytest

from vggc.importing.readers import read_net
from vggc.support.diagnostics import UserError
from vggc.weight_files.forms import open_weights

OTHERS: dict[str, bytes] = {
    "it is empty": b"",
    "it is a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n",
    "it is a web page": b"\n<!DOCTYPE html>\n<html></html>",
    "it is compressed by gzip": b"\x1f\x8b\x08\0\0\0\0",
    "it is a net of TensorFlow Lite": b"\x1c\0\0\0TFL3\0\0",
    "it is a text, and no": b'{"message": "Not Found"}',
}


@pytest.mark.parametrize(("told", "content"), OTHERS.items(), ids=OTHERS.keys())
def test_what_is_no_net_is_called_what_it_is(tmp_path: Path, told: str, content: bytes) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(UserError, match=told):
        read_net([str(path)])
    with pytest.raises(UserError, match=told), open_weights(path):
        pass


def test_a_folder_of_tensorflows_is_told_how_it_becomes_onnx(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").touch()
    with pytest.raises(UserError, match="tf2onnx"):
        read_net([str(tmp_path)])
