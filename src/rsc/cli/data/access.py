"""What the verbs of `rsc data` share: their arguments, who is asking, and the key to look with."""

from __future__ import annotations

import getpass
from typing import Annotated

import typer

from rsc.audit.log import AuditLog
from rsc.cli.output import say
from rsc.clock import SystemClock
from rsc.config import Workspace
from rsc.keys.providers.configured import configured_providers
from rsc.release.agent.agent import KeyAgent
from rsc.review.approval.identity import Identity, create_identity, load_identity

Name = Annotated[str, typer.Argument(help="Name of a data set, as in `rsc data ls`.")]
Version = Annotated[int | None, typer.Option("--version", help="Which version; the newest if left out.")]
As = Annotated[str | None, typer.Option("--as", help="Your name as a reviewer; your login name if left out.")]
Subject = Annotated[
    str, typer.Option("--subject", help="An address, number or handle of the person; - reads it from stdin.")
]
Note = Annotated[str, typer.Option("--note", help="What you looked at, and why you decided so.")]


def user_name(as_name: str | None) -> str:
    return as_name or getpass.getuser()


def identity_of(workspace: Workspace, as_name: str | None) -> Identity:
    """The signing identity; made at first use."""
    name = user_name(as_name)
    if (workspace.identities / f"{name}.key").exists():
        return load_identity(workspace.identities, name=name)
    say(f"made a signing key for {name} in {workspace.identities}")
    return create_identity(workspace.identities, name=name)


def key_agent(workspace: Workspace, *, audit: AuditLog) -> KeyAgent:
    return KeyAgent(
        workspace, providers=configured_providers(workspace.keys), audit=audit, clock=SystemClock()
    )
