"""`tokenmark`: the group of verbs, and how mistakes end."""

import difflib
import importlib
import sys
from typing import Any

import click

from tokenmark import __version__
from tokenmark.errors import TokenmarkError

VERBS = (
    "list",
    "protocols",
    "prepare",
    "weights",
    "run",
    "throughput",
    "cost",
    "tokenize",
    "fid",
    "parity",
    "verify",
    "show",
    "compare",
    "reproduce",
    "submit",
    "check-results",
    "leaderboard",
    "sync",
)
INTERRUPTED = 130


class Verbs(click.Group):
    """Imports a verb's file only when the verb is used, so that `--help` is quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        """The verbs, in the order in which a newcomer meets them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a verb."""
        if cmd_name not in VERBS:
            near = difflib.get_close_matches(cmd_name, VERBS, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(VERBS)}"
            ctx.fail(f"unknown command '{cmd_name}': {hint}")
        command: click.Command = importlib.import_module(f"tokenmark.cli.{cmd_name.replace('-', '_')}_").command
        return command


@click.group(
    cls=Verbs,
    epilog="Start with `tokenmark list`, then `tokenmark run mini`. Every verb explains itself with --help.",
)
@click.version_option(__version__)
def group() -> None:
    """Measure visual tokens: image tokenizers, token generators and token reduction, under named protocols."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; a user's mistake is one line and status 2, ctrl-C is status 130."""
    sys.exit(status_of(arguments))


def status_of(arguments: list[str] | None = None) -> int:
    """Run the command line and give the exit status."""
    try:
        result: Any = group.main(args=arguments, prog_name="tokenmark", standalone_mode=False)
    except click.ClickException as error:
        _say(error.format_message())
        return 2
    except TokenmarkError as error:
        _say(str(error))
        return 2
    except (KeyboardInterrupt, click.Abort):
        _say("stopped; nothing that was finished is lost, and the same command goes on from here")
        return INTERRUPTED
    except BrokenPipeError:
        return 0
    return result if isinstance(result, int) else 0


def _say(text: str) -> None:
    click.echo(f"tokenmark: {' '.join(text.split())}", err=True)
