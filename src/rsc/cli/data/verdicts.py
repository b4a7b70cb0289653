"""`rsc data approve reject`: sign here, sign a packet for another account, or take over what one signed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from rsc.api import verdicts as api
from rsc.cli.data import review_text
from rsc.cli.data.access import As, Name, Note, PassphraseFile, Version, asking, say_enrolled
from rsc.cli.data.review import train_command
from rsc.cli.output import JsonFlag, emit, next_commands, say, write_new
from rsc.errors import ConfigError
from rsc.release.agent.custody import Custody
from rsc.review.approval.verdict import Verdict
from rsc.store.dataset import Dataset

From = Annotated[
    Path | None, typer.Option("--from", help="A verdict that a reviewer of another account signed.")
]
PacketFile = Annotated[
    Path | None, typer.Option("--packet", help="Sign what `rsc data review --write` of another account made.")
]
Write = Annotated[
    Path | None, typer.Option("--write", help="With --packet: the file for the signed verdict.")
]


def _verb(kind: Verdict, help_text: str) -> Callable[..., None]:
    """`rsc data approve` and `reject` take the same options."""

    def sign(
        name: Name,
        note: Note = "",
        version: Version = None,
        as_name: As = None,
        from_file: From = None,
        packet: PacketFile = None,
        write: Write = None,
        passphrase_file: PassphraseFile = None,
        as_json: JsonFlag = False,
    ) -> None:
        if _is_packet(kind, name, from_file=from_file, packet=packet, write=write):
            _sign_packet(kind, name, packet, write, note, as_name, passphrase_file, as_json)
            return
        give = api.approve if kind == "approve" else api.reject
        signed = give(
            name,
            note=note,
            version=version,
            as_name=as_name,
            handed_over=from_file,
            passphrase=asking(passphrase_file),
            first=say_enrolled,
        )
        _tell(signed, as_json=as_json)

    sign.__name__, sign.__doc__ = kind, help_text
    return sign


approve = _verb(
    "approve", "Sign for a version: the data, the report and the policy as they are now, and nothing else."
)
reject = _verb("reject", "Sign against a version. One rejection is enough; keys are then released to nobody.")


def _tell(signed: api.Signed, *, as_json: bool) -> None:
    emit(signed.to_json(), as_json=as_json, text="")
    say(review_text.verdict_text(signed))
    if signed.state == "approved":
        dataset = Dataset.open(Custody.open().workspace.bulk, name=signed.data, version=signed.version)
        next_commands(train_command(dataset), f"rsc data show {signed.data}")
    else:
        next_commands(f"rsc data show {signed.data}", "rsc data ls")


def _is_packet(
    kind: Verdict, name: str, *, from_file: Path | None, packet: Path | None, write: Path | None
) -> bool:
    """Raises ConfigError for options that do not go together."""
    if (packet is None) != (write is None) or (from_file is not None and packet is not None):
        raise ConfigError(
            "--packet and --write go together, and without --from",
            hint=f"rsc data {kind} {name} --packet FILE --write SIGNED",
        )
    return packet is not None


def _sign_packet(
    kind: Verdict,
    name: str,
    packet: Path | None,
    write: Path | None,
    note: str,
    as_name: str | None,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    assert packet is not None, "_is_packet said so"
    assert write is not None, "_is_packet said so"
    signed = api.sign_packet(
        kind, name, packet=packet, note=note, as_name=as_name, passphrase=asking(passphrase_file)
    )
    write_new(write, signed.content, mode=0o644)
    record = signed.to_json()
    emit({**record, "content": signed.content.decode(), "path": str(write)}, as_json=as_json, text="")
    say(f"signed as {signed.approver}: {kind} of {signed.data} version {signed.version}, in {write}")
    next_commands(("rsc", "data", kind, signed.data, "--from", write.absolute()), note=f"by {signed.owner}")
