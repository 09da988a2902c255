"""Published weights are fetched once, whole and checked, from a site on this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.weight_site import WeightSite, published, serving
from vggc.pretrained import diagnostics, store
from vggc.pretrained.fetch import why_refused
from vggc.pretrained.store import file_of, place_of, published_at
from vggc.pretrained.table import PUBLISHED, SITE
from vggc.support.diagnostics import Diagnostic, UserError

CONTENT = bytes(range(256)) * 9000
WEIGHTS = published("squeezenet", CONTENT)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WeightSite]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with serving(WeightSite({WEIGHTS.file: CONTENT})) as site:
        monkeypatch.setenv("VGGC_WEIGHTS_URL", site.url)
        yield site


def refused(weights=WEIGHTS) -> Diagnostic:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError) as caught:
        file_of(weights)
    return caught.value.diagnostics[0]


def files_in(folder: Path) -> set[str]:
    return {path.suffix for path in folder.iterdir()}


def test_a_file_is_fetched_once_and_then_takes_no_network(
    site: WeightSite, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = file_of(WEIGHTS)
    assert place.read_bytes() == CONTENT
    assert site.asked == [(WEIGHTS.file, None)]
    assert capsys.readouterr().err == (
        f"Fetching {site.url}/{WEIGHTS.file} (2 MiB), which is kept.\n"
    )
    assert files_in(place.parent) == {".pth", ".json", ".lock"}
    monkeypatch.setenv("VGGC_WEIGHTS_URL", "https://nowhere.invalid")
    assert file_of(WEIGHTS) == place


def test_what_was_cut_is_gone_on_with_in_the_same_command(site: WeightSite) -> None:
    site.cuts = [1_500_000, 200_000]
    assert file_of(WEIGHTS).read_bytes() == CONTENT
    ranges = [wanted for _, wanted in site.asked]
    assert ranges == [None, "bytes=1500000-", "bytes=1700000-"]


def test_the_next_command_goes_on_where_this_one_had_to_stop(site: WeightSite) -> None:
    site.cuts = [1_000_000, 0]
    found = refused()
    assert isinstance(found, diagnostics.WeightsCut)
    assert (found.done, found.path) == (1_000_000, str(place_of(WEIGHTS)))
    assert not place_of(WEIGHTS).exists()
    site.asked.clear()
    assert file_of(WEIGHTS).read_bytes() == CONTENT
    assert site.asked == [(WEIGHTS.file, "bytes=1000000-")]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_part_of_another_file_is_not_gone_on_with(site: WeightSite, ranges: bool) -> None:
    site.cuts = [1_000_000, 0]
    site.files[WEIGHTS.file] = b"x" * len(CONTENT)
    refused()
    site.files[WEIGHTS.file], site.ranges = CONTENT, ranges
    assert file_of(WEIGHTS).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (CONTENT[:-1] + b"x", "its SHA-256 is "),
        (CONTENT + b"x" * 100_000, "the server's file has 2,404,000 bytes"),
    ],
)
def test_another_file_is_refused_and_deleted(site: WeightSite, content: bytes, reason: str) -> None:
    site.files[WEIGHTS.file] = content
    found = refused()
    assert isinstance(found, diagnostics.WeightsAltered | diagnostics.WeightsUnreachable)
    assert found.reason.startswith(reason)
    assert files_in(place_of(WEIGHTS).parent) == {".lock"}


def test_of_a_sum_that_is_known_in_part_the_first_file_is_held_to(site: WeightSite) -> None:
    weights = replace(WEIGHTS, sha256=WEIGHTS.sha256[:8])
    place = file_of(weights)
    place.write_bytes(CONTENT[:-1] + b"x")
    found = refused(weights)
    assert isinstance(found, diagnostics.WeightsAltered)
    assert found.path == str(place)


def test_a_file_that_was_put_by_hand_is_checked(
    site: WeightSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VGGC_WEIGHTS_URL", "https://nowhere.invalid")
    place = place_of(WEIGHTS)
    place.parent.mkdir(parents=True)
    place.write_bytes(CONTENT)
    assert file_of(WEIGHTS) == place
    place.write_bytes(b"another")
    assert isinstance(refused(), diagnostics.WeightsAltered)
    assert place.exists()


def test_without_a_network_it_is_said_where_the_file_can_be_put(
    site: WeightSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setenv("VGGC_WEIGHTS_URL", url)
        found = refused()
    assert isinstance(found, diagnostics.WeightsUnreachable)
    assert (found.url, found.path) == (f"{url}/{WEIGHTS.file}", str(place_of(WEIGHTS)))
    assert found.reason == "Connection refused"


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("http://example.com/weights.pth", "it is not https://"),
        ("ftp://example.com/weights.pth", "it is not https://"),
    ],
)
def test_no_redirect_leads_elsewhere(site: WeightSite, target: str, reason: str) -> None:
    site.redirects[WEIGHTS.file] = target
    found = refused()
    assert isinstance(found, diagnostics.WeightsUnreachable)
    assert found.reason.startswith(f"it sends us on to {target}: {reason}")


def test_a_redirect_on_this_machine_is_followed(site: WeightSite) -> None:
    site.files["other.pth"] = site.files.pop(WEIGHTS.file)
    site.redirects[WEIGHTS.file] = f"{site.url}/other.pth"
    assert file_of(WEIGHTS).read_bytes() == CONTENT


def test_a_server_that_has_no_such_file_says_so(site: WeightSite) -> None:
    site.files.clear()
    found = refused()
    assert isinstance(found, diagnostics.WeightsUnreachable)
    assert found.reason == "the server answers 404 Not Found"


@pytest.mark.parametrize(
    "url", ["http://example.com", "file:///tmp", "ftp://127.0.0.1", "weights", "http://[", ""]
)
def test_addresses_that_anybody_could_answer_are_none(url: str) -> None:
    assert why_refused(url)


def test_https_and_this_machine_are_addresses() -> None:
    assert not any(
        map(why_refused, [SITE, "http://localhost:1/a", "http://[::1]:2", "http://127.1.2.3"])
    )


FETCH = """
import sys
from tests.support.weight_site import published
from vggc.pretrained.store import file_of
content = bytes(range(256)) * 9000
print(file_of(published("squeezenet", content)).stat().st_size)
"""


def test_two_processes_fetch_once(site: WeightSite) -> None:
    """The second waits for the first."""
    run = [sys.executable, "-c", FETCH]
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": root}
    both = [
        subprocess.Popen(run, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    told = [each.communicate(timeout=60) for each in both]
    assert [out.strip() for out, _ in told] == [b"2304000"] * 2, told
    assert len(site.asked) == 1


def test_ctrl_c_leaves_what_has_come(site: WeightSite, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "told", lambda _: interrupted)
    with pytest.raises(KeyboardInterrupt):
        file_of(WEIGHTS)
    part = place_of(WEIGHTS).with_name(f"{WEIGHTS.file}.part")
    assert part.read_bytes() == CONTENT[: 1 << 20]


def test_the_place_of_weights_tells_which_they_are(site: WeightSite) -> None:
    vgg16 = PUBLISHED["vgg16"]
    assert published_at(place_of(vgg16)) == vgg16
    assert published_at(Path("vgg16-397923af.pth")) is None


def test_each_sum_begins_with_the_digits_in_the_name_of_its_file() -> None:
    for net, weights in PUBLISHED.items():
        digits = weights.file.removesuffix(".pth").rpartition("-")[2]
        assert weights.net == net
        assert len(digits) == 8
        assert weights.sha256.startswith(digits)
        assert len(weights.sha256) in (8, 64)
        assert {*weights.sha256} <= {*"0123456789abcdef"}
