"""The door: `vggc COMMAND`. One module a command, imported when it is called."""

from __future__ import annotations

import errno
import gc
import sys
from importlib import import_module

import click

from vggc import __version__
from vggc.cli.arguments import refuse_empty
from vggc.diagnostics import CheckFailed, UserError

INSTALLED_WITH_VGGC = ("torch", "tvm", "onnx", "sklearn", "matplotlib", "PIL", "safetensors")
COMMANDS = {
    "summary": "Show what nets cost: shapes, parameters, MACs, memory.",
    "draw": "Draw a net: blocks to scale, joins, heads.",
    "zoo": "List the nets that come with vggc; show one.",
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
    "reproduce": "Make the paper's tables of results anew.",
    "tune": "Measure which kernels are the fastest, for compile to choose.",
    "compile": "Compile a net to an artifact that runs without PyTorch.",
    "run": "Run an artifact on an image.",
    "verify": "Check an artifact against PyTorch in float64.",
    "bench": "Time an artifact against other engines.",
    "export": "Write a net for other tools.",
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
        command = import_module(f"vggc.cli.{cmd_name.replace('-', '_')}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="vggc")
def cli() -> None:
    """A compiler and a model zoo for VGG-like networks.

    SPEC is a .vgg file, or the name of a net in the zoo: vgg11, vgg16, vgg19 …
    """


def main() -> None:
    """Runs the command line. Exit 1: a check failed; 2: a mistake of the user's."""
    from vggc.cli import console

    console.prepare()
    # A tree of many small things that all stay is built; looking through them pays nothing.
    gc.set_threshold(100_000, 50, 100)
    try:
        sys.exit(cli(standalone_mode=False) or 0)
    except UserError as error:
        console.diagnostics(error.diagnostics)
        sys.exit(2)
    except CheckFailed as error:
        console.failure(str(error))
        sys.exit(1)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        console.failure("interrupted")
        sys.exit(130)
    except BrokenPipeError:
        console.close_stdout()
        sys.exit(141)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in INSTALLED_WITH_VGGC:
            raise
        console.failure(f"this command needs the package {error.name}, which is not installed")
        sys.exit(2)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        console.failure(f"cannot write: {error.strerror}")
        sys.exit(2)
    except Exception:
        console.failure("internal error: this is a bug in vggc, not a mistake of yours")
        raise
