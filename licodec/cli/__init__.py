"""The command line: one file a command. They parse, call and print; the work is done elsewhere."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys

import typer

app = typer.Typer(
    name="licodec",
    help="Compress photographs with neural networks.\n\n"
    "licodec encode photo.png  writes photo.lic;  licodec decode photo.lic  writes photo.png.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
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


def _register() -> None:
    from licodec.cli import bench, compare, convert, decode, desktop, encode, info, models, thumbnail, train, weights

    app.command("encode")(encode.encode)
    app.command("decode")(decode.decode)
    app.command("info")(info.info)
    app.command("models")(models.models)
    app.command("compare")(compare.compare)
    app.command("bench")(bench.bench)
    app.command("thumbnail")(thumbnail.thumbnail)
    app.add_typer(desktop.app, name="desktop")
    app.add_typer(weights.app, name="weights")
    app.command("train")(train.train)
    app.command("convert-upstream")(convert.convert_upstream)
    app.command("convert", help="The same as convert-upstream.")(convert.convert_upstream)


_register()


def _tune_process() -> None:
    """What makes this process fast; before torch and numpy are imported. A library must not do this to its host."""
    # torch's threads spin while they wait for each other; beside another busy program
    # that made coding ten times as slow (measured: 2.6 s against 0.22 s a picture)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):
        # keep freed memory instead of asking the system for zeroed pages again: TCM is 17 % faster
        libc, m_mmap_max, m_trim_threshold = ctypes.CDLL(None), -4, -1
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)


def main() -> None:
    """Run the command line; errors of ours end it with one line and their exit code."""
    _tune_process()
    try:
        app(prog_name="licodec")
    except KeyboardInterrupt:
        print("licodec: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)
    except Exception as error:
        from licodec.cli.common import as_ours, traceback_wanted

        if traceback_wanted(sys.argv):
            raise
        problem = as_ours(error)
        print(f"licodec: {' '.join(str(problem).split())}", file=sys.stderr)
        sys.exit(problem.exit_code)
    finally:
        gc.freeze()  # nothing is searched for garbage any more: at its end Python would do so for 0.6 s, torch is large
