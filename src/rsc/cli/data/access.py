"""What the verbs of `rsc data` and `rsc review` share: their arguments, and the key to sign with."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from rsc.api import verdicts
from rsc.cli.output import say
from rsc.errors import ConfigError
from rsc.keys.providers.configured import read_secret
from rsc.release.agent.custody import Custody
from rsc.review.approval.enrolment import Enrolment
from rsc.review.approval.identity import Identity

Name = Annotated[str, typer.Argument(help="Name of a data set, as in `rsc data ls`.")]
Version = Annotated[int | None, typer.Option("--version", help="Which version; the newest if left out.")]
As = Annotated[
    str | None, typer.Option("--as", help="Which of the names that are enrolled for your account.")
]
Subject = Annotated[
    str, typer.Option("--subject", help="An address, number or handle of the person; - reads it from stdin.")
]
Note = Annotated[str, typer.Option("--note", help="What you looked at, and why you decided so.")]
PassphraseFile = Annotated[
    Path | None, typer.Option("--passphrase-file", help="Holds your key's passphrase; else you are asked.")
]


def signer(
    house: Custody, as_name: str | None, *, passphrase_file: Path | None = None
) -> tuple[Enrolment, Identity]:
    """Who signs, and with what. Asks for the passphrase of a key that has one."""
    return verdicts.signer(house, as_name, passphrase=asking(passphrase_file), first=say_enrolled)


def asking(file: Path | None) -> Callable[[str], bytes]:
    """Gives a passphrase by what it is of, from the file or the terminal."""
    return lambda what: passphrase_from(file, what=what)


def say_enrolled(reviewer: Enrolment) -> None:
    say(f"enrolled {reviewer.name}, who owns this workspace, as its first reviewer")


def passphrase_from(file: Path | None, *, what: str, is_new: bool = False) -> bytes:
    """From the file, else asked on the terminal, twice where it is new. Raises ConfigError without either."""
    if file is not None:
        passphrase = bytes(read_secret(file))
    elif sys.stdin.isatty():
        passphrase = getpass.getpass(f"{what}: ").encode()
        if is_new and getpass.getpass("again: ").encode() != passphrase:
            raise ConfigError("the two passphrases differ", hint="run the command again")
    else:
        raise ConfigError(f"the {what} is needed", hint="give --passphrase-file FILE, or use a terminal")
    if not passphrase:
        raise ConfigError(f"the {what} is empty")
    return passphrase
