"""`rsc VERB ...`: find the verb's file, import only that, run it, turn errors into exit codes.

The table below is the whole command line. A verb's module is imported when the verb is called, so
`rsc --help` and the light commands never load torch (tests/cli/test_light.py holds that).
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import typer

from rsc import __version__
from rsc.cli.output import say
from rsc.cli.start import raise_interrupts
from rsc.errors import ConfigError, Interrupted, ResourceError, RscError
from rsc.hardening import harden_process
from rsc.layers import nearest


@dataclass(frozen=True)
class Verb:
    module: str
    """Module under `rsc.cli` that holds a typer app called `app`, or a function named like the verb."""
    help: str


VERBS = {
    "quickstart": Verb("quickstart.main", "the main job, end to end, on this machine"),
    "doctor": Verb("doctor", "what this machine has, worst first"),
    "bundle": Verb("bundle", "collect the wheels that a machine without internet needs"),
    "data": Verb("data.verbs", "import, review, approve, show, expire, erase data sets"),
    "review": Verb("review", "score the scanner on a labelled corpus, explain a policy"),
    "keys": Verb("keys", "list, rotate and destroy keys"),
    "audit": Verb("audit", "show, verify and export the tamper-evident log"),
    "verify": Verb("audit", "re-check every promise"),
    "recipes": Verb("recipes", "list, print and copy training recipes"),
    "plan": Verb("plan", "what a run needs before anyone buys it, with the error of every prediction"),
    "simulate": Verb("simulate", "how a cluster will live: waiting, failures, goodput, what to change"),
    "train": Verb("train", "train a recipe on approved data"),
    "runs": Verb("runs", "list, show, follow, stop, resume and export runs"),
    "cluster": Verb("cluster", "what runs start on: Slurm, its state, a private one to try"),
    "explain": Verb("explain", "why a run or a job waits, or how it ended"),
    "eval": Verb("eval", "measure a run on held-out data"),
    "generate": Verb("eval", "continue a text with a trained language model"),
    "predict": Verb("eval", "apply a trained model to a file"),
}


USAGE_ERROR: Any = typer.BadParameter.__base__
"""What a wrong command line raises: of click, or of the copy of it inside newer versions of typer."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command of this process, and end in SystemExit with its exit code."""
    harden_process()
    os.umask(os.umask(0o077) | 0o022)  # a group must not write what decides, as where the umask is 002
    code = run(list(sys.argv[1:] if argv is None else argv))
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # an interpreter that ends prints a traceback otherwise
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code; errors are told on stderr."""
    try:
        return _dispatch(arguments)
    except (KeyboardInterrupt, typer.Abort):
        say("Interrupted")
        return Interrupted.exit_code
    except RscError as error:
        say(str(error))
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left: not our failure
        return 0
    except OSError as error:
        return _tell_os_error(error)
    except Exception as error:
        return _tell_defect(error)


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print(_help())
        return 0 if arguments else ConfigError.exit_code
    if arguments[0] in ("--version", "-V"):
        print(__version__)
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in VERBS:
        raise ConfigError(f"there is no command {name!r}", hint=nearest(name, VERBS, what="rsc --help"))
    try:
        command = _load(name)
        raise_interrupts()
        code = command(args=rest, prog_name=f"rsc {name}", standalone_mode=False)
    except USAGE_ERROR as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.format_message())
            return ConfigError.exit_code
        raise _usage_error(error, name=name) from None
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return code if isinstance(code, int) else 0


def _usage_error(error: Any, *, name: str) -> ConfigError:
    """What click found wrong, with a hint; an option that is a setting is written otherwise."""
    command = error.ctx.command_path if error.ctx is not None else f"rsc {name}"
    hint = f"{command} --help"
    if type(error).__name__ == "NoSuchOption":
        setting = settings_called(error.option_name.lstrip("-").replace("-", "_"))
        near = [name for name in error.possibilities or () if name != "--help"]
        near = [name for name in near if name.startswith(error.option_name)] or near
        if setting is not None and (name == "train" or command.endswith("resume")):
            hint = f"settings are written section.key=value: {setting}=..."
        elif near:
            hint = f"did you mean {' or '.join(sorted(near))}?"
        return ConfigError(f"there is no option {error.option_name}", hint=hint)
    return ConfigError(error.format_message().rstrip("."), hint=hint)


def settings_called(name: str) -> str | None:
    """The dotted key of a recipe whose last part is that."""
    from rsc.layers import keys_named
    from rsc.recipes.recipe import Recipe

    return next(iter(keys_named(Recipe, name)), None)


def _load(name: str) -> typer.Typer:
    module = import_module(f"rsc.cli.{VERBS[name].module}")
    function = getattr(module, name, None)
    if function is None:
        app: typer.Typer = module.app
        return app
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    single.command()(function)
    return single


def _help() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {name.ljust(width)}  {verb.help}" for name, verb in VERBS.items()]
    return "\n".join(
        [
            "RSC trains models on private data that stays encrypted until the moment of training.",
            "",
            "usage: rsc COMMAND ...      (rsc COMMAND --help for each)",
            "",
            *lines,
            "",
            "Data goes to stdout (--json where it is read), everything else to stderr. Exit codes:",
            "0 done, 1 failed, 2 usage, 3 refused by the privacy gate, 4 resources, 5 waiting,",
            "75 checkpointed on request, 130 interrupted.",
        ]
    )


def _tell_os_error(error: OSError) -> int:
    where = f" on {error.filename}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        failure: RscError = ResourceError(
            f"the disk is full{where}", hint="free space and run the command again"
        )
    else:
        failure = ConfigError(f"{error.strerror or type(error).__name__}{where}")
    say(str(failure))
    return failure.exit_code


def _tell_defect(error: Exception) -> int:
    """Our mistake. The message may quote data, so only its kind and place are shown unless asked."""
    if os.environ.get("RSC_DEBUG"):
        traceback.print_exception(error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    say(f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}: this is a defect of RSC")
    say("hint: run it again with RSC_DEBUG=1 for the traceback (it may quote data)")
    return RscError.exit_code
