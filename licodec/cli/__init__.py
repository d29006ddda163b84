"""The command line: one file per command. They parse, call and print; the work is done elsewhere."""

from __future__ import annotations

import gc
import importlib
import itertools
import sys
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption
from typer.main import get_group

from licodec.cli import process

INTERRUPTED = 130  # exit code after Ctrl-C

# What `--help` lists, in its order: where the function of each command is, or the app of a group of commands.
COMMANDS = {
    "encode": "encode:encode",
    "decode": "decode:decode",
    "verify": "verify:verify",
    "info": "info:info",
    "models": "models:models",
    "compare": "compare:compare",
    "bench": "bench:bench",
    "thumbnail": "thumbnail:thumbnail",
    "view": "view:view",
    "train": "train:train",
    "convert-upstream": "convert:convert_upstream",
    "convert": "convert:convert_upstream",
    "desktop": "desktop:app",
    "weights": "weights:app",
}
HELP = {"convert": "The same as convert-upstream."}  # in place of the function's own


class _Commands(TyperGroup):
    """The commands; each is imported and built when it is asked for, since building all takes longer than `info`."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name].split(":")
        found = getattr(importlib.import_module(f"licodec.cli.{module}"), name)
        single = typer.Typer(rich_markup_mode="rich")
        if isinstance(found, typer.Typer):
            single.add_typer(found, name=cmd_name)
        else:
            single.command(cmd_name, cls=_Command, help=HELP.get(cmd_name))(found)
        return get_group(single).commands[cmd_name]


app = typer.Typer(
    name="licodec",
    cls=_Commands,
    help="Compress photographs with neural networks.\n\n"
    "licodec encode photo.png  writes photo.lic;  licodec decode photo.lic  writes photo.png.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        from licodec import __version__

        print(f"licodec {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


class _Command(TyperCommand):
    """A command whose help is plain text, shown in groups; and whose `--strip` may stand single."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.help = _escaped(self.help)
        for parameter in self.params:
            if isinstance(parameter, TyperArgument | TyperOption):
                parameter.help = _escaped(parameter.help)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if any("--strip" in parameter.opts for parameter in self.params):
            args = _with_bare_strip(args)
        return super().parse_args(ctx, args)


def _escaped(text: str | None) -> str | None:
    """Brackets are no markup."""
    return text and text.replace("[", "\\[")


def _with_bare_strip(arguments: list[str]) -> list[str]:
    """`--strip` that no kinds follow, as `--strip=all`: options of the parser always or never take a value."""
    from licodec.cli.common import METADATA

    out = []
    for word, following in itertools.zip_longest(arguments, arguments[1:], fillvalue=""):
        kinds = set(following.split(",")) <= {*METADATA, "all"}
        out.append("--strip=all" if word == "--strip" and not kinds else word)
    return out


def _misused(error: Any) -> int:
    """Say what is wrong with the call, in one line; gives the exit code."""
    if type(error).__name__ != "NoArgsIsHelpError":  # that has shown the help
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "licodec"
        message = error.format_message()
        if type(error).__name__ == "MissingParameter":  # typer's versions name it differently
            message = f"Missing {error.param.param_type_name} {error.param.name!r}."
        print(f"licodec: {' '.join(message.split())} (see {command} --help)", file=sys.stderr)
    return error.exit_code


def main() -> None:
    """Run the command line; errors of ours and of the call end it with one line and their exit code."""
    process.tune()
    end = process.End()
    try:
        _run()
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            end.code = ended.code or 0
        raise
    finally:
        gc.freeze()  # nothing is searched for garbage any more: at its end Python would do so for 0.6 s, torch is large


def _run() -> None:
    """Do what is asked for; raises SystemExit."""
    try:
        code = app(prog_name="licodec", standalone_mode=False)
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        sys.exit(code)
    except KeyboardInterrupt:
        print("licodec: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.exit(141)
    except Exception as error:
        from licodec.cli.common import traceback_wanted
        from licodec.errors import as_ours, with_options

        if hasattr(error, "format_message"):  # the parser's own
            sys.exit(_misused(error))
        if traceback_wanted(sys.argv):
            raise
        problem = as_ours(error)
        print(f"licodec: {with_options(str(problem))}", file=sys.stderr)
        sys.exit(problem.exit_code)
