"""Who runs a process, as the kernel says: a number, and its name in the password database.

`USER`, `LOGNAME` and flags are words that anybody can set, so no decision reads them.

Not covered: several people behind one account (a policy can name it as shared); root, who can become anybody.
"""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Account:
    uid: int
    name: str
    """Of the password database; the number as text where that has none."""


def account_of(uid: int) -> Account:
    try:
        return Account(uid, pwd.getpwuid(uid).pw_name)
    except KeyError:
        return Account(uid, str(uid))


def this_account() -> Account:
    return account_of(os.getuid())


def home_of(account: Account) -> Path | None:
    """The home folder in the password database; None for an account that is not in it."""
    try:
        return Path(pwd.getpwuid(account.uid).pw_dir)
    except KeyError:
        return None
