"""vggc: a declarative graph compiler and model zoo for VGG-like networks.

    import vggc

    net = vggc.load("vgg16")            # a net: net.report(), net.picture(), net.module()
    run = vggc.train("tiny_vgg")        # a run: run.history, run.best, run.module()
    artifact = vggc.compile(run)        # a compiled net: artifact(x), artifact.predict("cat.jpg")

Every mistake is a `vggc.UserError`, whose text is what the command line prints. Nothing else is
imported before it is used.
"""

from importlib import import_module

from vggc_runtime.version import __version__ as __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vggc.api.verify import Verdict as Verdict
    from vggc.measure.bench import Timing as Timing
    from vggc.python.artifact import Artifact as Artifact
    from vggc.python.artifact import compile as compile
    from vggc.python.artifact import open_artifact as open_artifact
    from vggc.python.export import export as export
    from vggc.python.features import ProbeScores as ProbeScores
    from vggc.python.features import probe as probe
    from vggc.python.import_ import ImportedFiles as ImportedFiles
    from vggc.python.import_ import import_net as import_net
    from vggc.python.localisation import Localisation as Localisation
    from vggc.python.localisation import localise as localise
    from vggc.python.net import NetPicture as NetPicture
    from vggc.python.net import NetSummary as NetSummary
    from vggc.python.net import Network as Network
    from vggc.python.net import from_text as from_text
    from vggc.python.net import load as load
    from vggc.python.net import zoo as zoo
    from vggc.python.prediction import Prediction as Prediction
    from vggc.python.run import EvalScores as EvalScores
    from vggc.python.run import TrainingRun as TrainingRun
    from vggc.python.run import evaluate as evaluate
    from vggc.python.run import open_run as open_run
    from vggc.python.run import train as train
    from vggc.python.tuning import TuningResult as TuningResult
    from vggc.python.tuning import tune as tune
    from vggc.support.diagnostics import CheckFailed as CheckFailed
    from vggc.support.diagnostics import Diagnostic as Diagnostic
    from vggc.support.diagnostics import UserError as UserError

_PLACES = {
    "Verdict": "vggc.api.verify",
    "Timing": "vggc.measure.bench",
    "Artifact": "vggc.python.artifact",
    "compile": "vggc.python.artifact",
    "open_artifact": "vggc.python.artifact",
    "export": "vggc.python.export",
    "ProbeScores": "vggc.python.features",
    "probe": "vggc.python.features",
    "ImportedFiles": "vggc.python.import_",
    "import_net": "vggc.python.import_",
    "Localisation": "vggc.python.localisation",
    "localise": "vggc.python.localisation",
    "NetPicture": "vggc.python.net",
    "NetSummary": "vggc.python.net",
    "Network": "vggc.python.net",
    "from_text": "vggc.python.net",
    "load": "vggc.python.net",
    "zoo": "vggc.python.net",
    "Prediction": "vggc.python.prediction",
    "EvalScores": "vggc.python.run",
    "TrainingRun": "vggc.python.run",
    "evaluate": "vggc.python.run",
    "open_run": "vggc.python.run",
    "train": "vggc.python.run",
    "TuningResult": "vggc.python.tuning",
    "tune": "vggc.python.tuning",
    "CheckFailed": "vggc.support.diagnostics",
    "Diagnostic": "vggc.support.diagnostics",
    "UserError": "vggc.support.diagnostics",
}
"""Where each name is, which is imported when somebody asks for it."""

__all__ = ["__version__", *_PLACES]


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module 'vggc' has no attribute {name!r}")
    value: object = getattr(import_module(_PLACES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
