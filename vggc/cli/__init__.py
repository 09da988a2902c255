"""The entry point `vggc COMMAND`. One module a command, imported when it is called."""

from __future__ import annotations

import gc
import os
import sys
from importlib import import_module

from vggc.cli.systems import refuse_command, refuse_system

refuse_system()  # before anything is imported that such a system lacks

import click

from vggc.cli.arguments import refuse_empty
from vggc.support import signals
from vggc.support.diagnostics import CheckFailed, UserError
from vggc.support.paths import exists
from vggc_runtime.version import __version__

INSTALLED_WITH_VGGC = ("torch", "tvm", "onnx", "sklearn", "matplotlib", "PIL", "safetensors")
TOO_LITTLE = "this machine has too little memory for that"
GONE = 141
"""The exit code that shells give a program whose reader has gone."""
COMMANDS = {
    "summary": "Show what nets cost: shapes, parameters, MACs, memory.",
    "draw": "Draw a net: blocks to scale, joins, heads.",
    "zoo": "List the nets that come with vggc; show one.",
    "weights": "List the nets that have published weights; fetch some.",
    "layers": "List the kinds of layers, their options and defaults.",
    "settings": "List the settings of recipes and tests.",
    "check": "Check spec files; print them with everything filled in.",
    "fmt": "Write spec files the canonical way.",
    "train": "Train a net.",
    "find-lr": "Find a learning rate for a net and its images.",
    "report": "Show a run as a page: curves, errors, filters, recipe.",
    "compare": "Show runs beside one another: curves, outcome, what differs.",
    "eval": "Test trained nets: top-1 and top-5 error.",
    "predict": "Tell the classes of images.",
    "localise": "Tell where objects are in images, and draw boxes around them.",
    "inspect": "Show how a net looks at an image: maps, filters, saliency.",
    "features": "Write what a layer of a net gives of images.",
    "probe": "Measure what a linear classifier makes of features.",
    "reproduce": "Make the paper's tables of results anew.",
    "tune": "Measure which kernels are the fastest, for compile to choose.",
    "compile": "Compile a net to an artifact that runs without PyTorch.",
    "run": "Run an artifact on an image.",
    "serve": "Serve artifacts over HTTP.",
    "verify": "Check an artifact against PyTorch in float64.",
    "bench": "Time an artifact against other engines.",
    "export": "Write a net for other tools.",
    "import": "Write a net of another framework as a spec and weights.",
    "lsp": "Serve an editor: mistakes, hover, completion.",
}


class _Commands(click.Group):
    """Finds commands without importing the others, so that each starts at once."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        refuse_empty(args)
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        refuse_command(cmd_name)
        module = "import_" if cmd_name == "import" else cmd_name.replace("-", "_")
        command = import_module(f"vggc.cli.{module}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    invoke_without_command=True,
    no_args_is_help=True,
)
@click.option("--version", is_flag=True, help="Show the version.")
@click.option("--verbose", is_flag=True, help="With --version: packages, CPU, memory, GPUs, too.")
@click.pass_context
def cli(ctx: click.Context, version: bool, verbose: bool) -> None:
    """A compiler and a model zoo for VGG-like networks.

    SPEC is a .vgg file, or the name of a net in the zoo: vgg11, vgg16, vgg19 …
    """
    if version:
        show_version(verbose)
        ctx.exit()
    if verbose:
        raise click.UsageError("--verbose is for --version")


def show_version(verbose: bool) -> None:
    """Prints the version of vggc; `verbose`, that of all it builds on and what the machine is."""
    from vggc.cli import console

    if not verbose:
        console.out(f"vggc, version {__version__}")
        return
    from vggc.cli.version import everything

    for name, told in everything():
        console.out(f"{name:<16}{told}")


def main() -> None:
    """Runs the command line.

    Exit 1: a check failed; 2: a mistake of the user's; 128 and the number of a signal that ended
    it; 141: nobody read the result to its end.
    """
    from vggc.cli import console

    console.prepare()
    # A tree of many small things that all stay is built; looking through them pays nothing.
    gc.set_threshold(100_000, 50, 100)
    with signals.raising():
        code = ended_with()
    sys.exit(code)


def ended_with() -> int:
    """Runs the command line; its exit code."""
    from vggc.cli import console
    from vggc_runtime.processors import limit_threads

    try:
        limit_threads()
        return cli(standalone_mode=False) or 0
    except UserError as error:
        console.diagnostics(error.diagnostics)
        return 2
    except CheckFailed as error:
        console.failure(str(error))
        return 1
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.exceptions.Exit as error:
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        console.failure("interrupted")
        return signals.exit_code()
    except console.NotPrinted as error:
        if error.is_gone:
            return GONE
        console.failure(f"cannot write the result: {error}")
        return 2
    except Exception as error:
        if signals.any_received():
            # Who was interrupted may have made another error of it.
            console.failure("interrupted")
            return signals.exit_code()
        if reason := of_surroundings(error):
            console.failure(reason)
            return 2
        console.failure("internal error: this is a bug in vggc, not a mistake of yours")
        raise


def of_surroundings(error: Exception) -> str | None:
    """What an error that no command expects says of the machine; None where it is a bug."""
    match error:
        case ModuleNotFoundError(name=str(name)) if name.partition(".")[0] in INSTALLED_WITH_VGGC:
            return f"this command needs the package {name}, which is not installed"
        case FileNotFoundError() if not error.filename and not exists(os.curdir):
            return "the folder that you are in has been removed"
        case OSError(strerror=str(reason)):
            return f"{error.filename}: {reason}" if error.filename else reason
        case RuntimeError() if "Symlink loop" in str(error):  # before Python 3.13
            return str(error)
        case MemoryError():
            return TOO_LITTLE
        case RuntimeError() if "DefaultCPUAllocator" in str(error):  # PyTorch's
            return TOO_LITTLE
        case ImportError() if "failed to map segment" in str(error):
            return f"{TOO_LITTLE}: {error}"
        case ImportError() if ".so" in str(error):
            return f"a library that vggc needs cannot be loaded: {error}"
        case RuntimeError() if "can't start new thread" in str(error):
            return (
                "the system starts no more threads: memory or their number is limited (ulimit -a)"
            )
        case _:
            return None
