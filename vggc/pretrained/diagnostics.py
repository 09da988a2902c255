"""What is wrong with published weights, in words."""

from __future__ import annotations

from vggc.support.diagnostics import Diagnostic


class NoPublishedWeights(Diagnostic):
    title = "nobody has published weights for {net} that vggc knows of"
    label = "{reason}"
    help = "these nets of the zoo have such: {others}"
    net: str
    reason: str
    others: str


class NoSuchWeights(Diagnostic):
    title = "there are no weights `{word}`"
    label = "it is no file"
    help = "did you mean `{meant}`?"
    word: str
    meant: str


class PublishedMisfit(Diagnostic):
    title = "the weights that are published for {other} do not fit this net"
    label = "{reason}"
    help = "a training takes them where layers are alike: `vggc train SPEC --init-from imagenet`"
    other: str
    reason: str


class NothingPublishedFits(Diagnostic):
    title = "no layer of {net} can begin with published weights"
    label = "none has the name and the shapes of a layer of {other}"
    help = "leave `--init-from` out, or name layers: `--set init-from.layers=conv1_1`"
    net: str
    other: str


class NoPlaceForWeights(Diagnostic):
    title = "there is no place to keep published weights in"
    label = "this process has no home folder"
    help = "name a folder for caches in the environment: XDG_CACHE_HOME=DIR"


class WeightsAddress(Diagnostic):
    title = "published weights are not fetched from {url}"
    label = "{reason}"
    help = "give an address that begins with https:// in VGGC_WEIGHTS_URL, or none"
    url: str
    reason: str


class WeightsUnreachable(Diagnostic):
    title = "cannot fetch the weights of {net} from {url}"
    label = "{reason}"
    help = "where this machine has no network, bring the file here from another: {path}"
    net: str
    url: str
    reason: str
    path: str


class WeightsCut(Diagnostic):
    title = "only a part of the weights of {net} has come from {url}"
    label = "{done:,} bytes are there: {reason}"
    help = "the same command goes on from there; or bring the file here yourself: {path}"
    net: str
    url: str
    done: int
    reason: str
    path: str


class WeightsAltered(Diagnostic):
    title = "{path} is not the file of weights that was published for {net}"
    label = "{reason}"
    help = "{hint}"
    path: str
    net: str
    reason: str
    hint: str
