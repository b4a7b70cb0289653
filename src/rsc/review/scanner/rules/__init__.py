"""The rules, as a set of independent patterns (one big alternation would lose matches)."""

from __future__ import annotations

from rsc.review.scanner.rules import (
    address,
    contact,
    context,
    credential,
    crossing,
    national,
    network,
    payment,
    phone,
    private_key,
    secret,
    token,
    wallet,
)
from rsc.review.scanner.rules.rule import Rule

ALL_RULES: tuple[Rule, ...] = (
    *contact.RULES,
    *phone.RULES,
    *payment.RULES,
    *national.RULES,
    *network.RULES,
    *wallet.RULES,
    *context.RULES,
    *address.RULES,
    *crossing.RULES,
    *secret.RULES,
    *credential.RULES,
    *private_key.RULES,
    *token.RULES,
)
