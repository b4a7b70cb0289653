"""A policy in sentences, and what is weak about it."""

from __future__ import annotations

from typing import Literal, NamedTuple

from rsc.review.findings import TYPES, not_looked_for
from rsc.review.policy import ACTIONS, Policy
from rsc.units import format_seconds

_ISOLATION = {
    "required": "Workers get a key only after they proved that they have no route out.",
    "best-effort": "Workers are cut off from the network where the kernel allows it, and the report says "
    "when it does not.",
    "none": "Workers may have a route out: nothing stops code in them from sending data away.",
}


class Remark(NamedTuple):
    level: Literal["note", "warning"]
    field: str
    sentence: str


_CIPHERS = {
    "fips": "It and checkpoints of what is trained on it are encrypted with what NIST approves only: "
    "AES-256-GCM.",
    "aes-256-gcm": "It and checkpoints of what is trained on it are encrypted with AES-256-GCM.",
    "aegis-256": "It and checkpoints of what is trained on it are encrypted with AEGIS-256, which NIST "
    "does not approve.",
}


def explain(policy: Policy) -> list[str]:
    """What the policy means, one sentence each, in the order a reviewer asks."""
    people = "everybody" if "*" in policy.who_may_train else ", ".join(policy.who_may_train)
    sentences = [
        f"The data may be used to {_join(policy.purpose)}, and for nothing else.",
        f"It may be trained on by {people}.",
        f"It is kept for {format_seconds(policy.retention_s)}; then its keys are destroyed.",
        _approval_sentence(policy),
        _ISOLATION[policy.isolation],
        *([_CIPHERS[policy.cipher]] if policy.cipher in _CIPHERS else []),
    ]
    by_model = {name for model in policy.models for name in model.labels.values()}
    for action, meaning in ACTIONS.items():
        names = [name for name in (*TYPES, *sorted(by_model - set(TYPES))) if policy.action(name) == action]
        if names:
            sentences.append(f"What is found of {_join(names)} {meaning}.")
    sentences += [
        f"{name} may stay because: {reason.rstrip('.')}." for name, reason in policy.reasons.items()
    ]
    if policy.tables.quasi_identifiers:
        tables = policy.tables
        sentences.append(
            f"Each combination of {_join(tables.quasi_identifiers)} must occur at least {tables.k} times."
        )
    if policy.safeguard:
        sentences.append(
            f"Pictures and speech are not scanned; the safeguard is: {policy.safeguard.rstrip('.')}."
        )
    if policy.region or policy.region_field:
        sentences.append(_region_sentence(policy))
    for model in policy.models:
        types = _join(sorted(set(model.labels.values())))
        sentences.append(f"The {model.engine} model {model.model} looks for {types}; recall: {model.recall}.")
    sentences.append(f"Not looked for: {'; '.join(not_looked_for(by_model))}.")
    return sentences


def _region_sentence(policy: Policy) -> str:
    country = f"the country that the field {policy.region_field} names" if policy.region_field else ""
    where = f"{country}, else {policy.region}" if country and policy.region else country or policy.region
    return f"Telephone numbers without a country code are read as those of {where}."


def _approval_sentence(policy: Policy) -> str:
    valid = format_seconds(policy.approval_valid_s)
    if policy.single_person:
        return f"ONE person imports and approves (single-person mode); the approval counts for {valid}."
    return (
        f"{policy.required_approvers} people other than the author must sign; an approval counts for {valid}."
    )


def lint(policy: Policy) -> list[Remark]:
    """What a careful reviewer would ask about. An empty list means nothing to ask."""
    remarks = [
        Remark("warning", "isolation", _ISOLATION["none"]) if policy.isolation == "none" else None,
        Remark("warning", "single_person", "nobody but the author looks at the data")
        if policy.single_person
        else None,
        Remark("note", "who_may_train", "everybody who reaches the key agent may train")
        if "*" in policy.who_may_train
        else None,
        Remark("note", "required_approvers", "one approver is a single point of error")
        if policy.required_approvers == 1 and not policy.single_person
        else None,
        Remark("warning", "retention", "longer than a year; most purposes need less")
        if policy.retention_s > 366 * 86400
        else None,
        Remark("warning", "approval_valid", "approvals outlive the data")
        if policy.approval_valid_s > policy.retention_s
        else None,
        Remark("warning", "min_group", "figures of so few people describe each of them")
        if policy.min_group < Policy().min_group
        else None,
        Remark("warning", "tables", "k = 1 asks nothing of the quasi-identifiers")
        if policy.tables.quasi_identifiers and policy.tables.k == 1
        else None,
        Remark("warning", "tables", "l-diversity above 1 needs sensitive columns")
        if policy.tables.l > 1 and not policy.tables.sensitive
        else None,
    ]
    remarks += [
        Remark("warning", f"actions.{name}", f"{TYPES[name]} stay in the data")
        for name in TYPES
        if policy.action(name) == "allow"
    ]
    remarks += [
        Remark("note", f"reasons.{name}", "a reason without `allow` has no effect")
        for name in policy.reasons
        if policy.action(name) != "allow"
    ]
    remarks += [
        Remark("warning", "shared_accounts", f"the users of {account} cannot be told from each other")
        for account in policy.shared_accounts
    ]
    return [remark for remark in remarks if remark is not None]


def _join(words: tuple[str, ...] | list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
