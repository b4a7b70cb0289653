"""The privacy policy of a data set: a TOML file that a person reads and signs.

`explain` turns it into sentences, `lint` names what is weak or contradictory. The bytes of the file are
what an approval binds, so a policy is never re-written after it was approved.
"""

from __future__ import annotations

import difflib
import hashlib
from typing import Annotated, Any, Literal

import tomlkit
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from rsc.config import CipherChoice
from rsc.errors import ConfigError
from rsc.review.findings import RECOGNISER_TYPES, TYPES
from rsc.review.phone_number import region_in
from rsc.review.scanner.recogniser import RecogniserConfig
from rsc.toml import parse_toml
from rsc.units import parse_seconds

Action = Literal["redact", "mask", "pseudonymise", "drop", "reject", "allow"]
Purpose = Literal["train", "evaluate", "export"]
Isolation = Literal["required", "best-effort", "none"]
Cipher = Literal["auto", "aes-256-gcm", "aegis-256", "fips"]

ACTIONS: dict[str, str] = {
    "redact": "is replaced by its type, e.g. [EMAIL]",
    "mask": "is replaced by its type and a class of its length, e.g. [EMAIL 9-16]",
    "pseudonymise": "becomes a keyed code, the same person the same code in every document",
    "drop": "makes the whole record be left out",
    "reject": "stops the import",
    "allow": "stays as it is",
}


class Tables(BaseModel):
    """Declared quasi-identifiers of tabular data and what is asked of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    quasi_identifiers: tuple[str, ...] = ()
    """Columns that together may single out a person, e.g. postcode, birth year, sex."""
    sensitive: tuple[str, ...] = ()
    """Columns whose value must stay unknown about a person, e.g. diagnosis."""
    k: Annotated[int, Field(ge=1)] = 5
    """Every combination of quasi-identifiers must occur at least k times (k-anonymity)."""
    l: Annotated[int, Field(ge=1)] = 1  # noqa: E741
    """Every such group must hold at least l different values of each sensitive column (l-diversity)."""


class Policy(BaseModel):
    """See docs/review.md for the reference. Every field has a safe default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    purpose: tuple[Purpose, ...] = ("train", "evaluate", "export")
    """What the data may be used for; keys are released for these purposes only."""
    retention: str = "90d"
    """How long the data may be kept; its keys are destroyed afterwards. Units s m h d w."""
    approval_valid: str = "30d"
    """How long an approval counts; afterwards somebody has to look again."""
    required_approvers: Annotated[int, Field(ge=1, le=9)] = 2
    """Different people that must sign. The author counts only in single-person mode."""
    shared_accounts: tuple[str, ...] = ()
    """Accounts that several people use: there each enrolled reviewer is one person, else each account."""
    single_person: bool = False
    """One person imports and approves. Said so in every report, run and model card."""
    isolation: Isolation = "best-effort"
    """Whether workers must prove that they have no route out before they get a key."""
    cipher: Cipher = "auto"
    """Pins the cipher of the data and of checkpoints of what is trained on it; `fips`: only one that NIST
    approves, AES-256-GCM. `auto` leaves it to `store.cipher` of the workspace that writes."""
    who_may_train: tuple[str, ...] = ("*",)
    """User names, or `*` for everybody who can reach the key agent."""
    code: tuple[Annotated[str, Field(pattern="^[0-9a-f]{64}$")], ...] = ()
    """Hashes of RSC's source, as `rsc verify` prints them, that workers may run on the data. Empty: any."""
    min_group: Annotated[int, Field(ge=1)] = 10
    """The smallest group that an evaluation may show: `eval.min_group` can ask for larger ones alone."""
    region: str = ""
    """Country (ISO 3166, "DE") whose telephone numbers are found and compared in local spelling."""
    region_field: str = ""
    """Text field of the records that names each one's country ("DE", "de-AT"); else `region` counts."""
    safeguard: str = ""
    """What protects people in media that is not scanned (pictures, speech); needed to import such media."""
    default_action: Action = "redact"
    """What happens to a type that [actions] does not name."""
    actions: dict[str, Action] = Field(default_factory=dict)
    """Action per type of personal data."""
    mask_last: dict[str, Annotated[int, Field(ge=0, le=4)]] = Field(default_factory=dict)
    """How many last ASCII letters and digits a mask shows, per type; at most a quarter. Default: none."""
    reasons: dict[str, str] = Field(default_factory=dict)
    """Why a type is allowed to stay; needed for each `allow`."""
    tables: Tables = Tables()
    models: tuple[RecogniserConfig, ...] = ()
    """Models that look for names beside the rules (recogniser.py)."""

    @field_validator("retention", "approval_valid")
    @classmethod
    def _is_duration(cls, value: str) -> str:
        if parse_seconds(value) <= 0:
            raise ValueError("must be longer than nothing")
        return value

    @field_validator("region")
    @classmethod
    def _is_region(cls, value: str) -> str:
        if value and region_in(value) != value:
            raise ValueError(f'{value!r} is no country code such as "DE"')
        return value

    @field_validator("actions", "reasons", "mask_last")
    @classmethod
    def _are_types(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if name not in TYPES and name not in RECOGNISER_TYPES:
                near = difflib.get_close_matches(name, [*TYPES, *RECOGNISER_TYPES], n=1)
                raise ValueError(f"unknown type {name!r}" + (f", did you mean {near[0]!r}?" if near else ""))
        return value

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Policy:
        types = (*TYPES, *RECOGNISER_TYPES)
        unexplained = [
            name for name in types if self.action(name) == "allow" and not self.reasons.get(name, "").strip()
        ]
        if unexplained:
            raise ValueError(f"`allow` needs a reason under [reasons] for: {', '.join(unexplained)}")
        if self.code and self.isolation != "required":
            raise ValueError(
                'code needs isolation = "required": elsewhere workers can exchange what they run'
            )
        if self.single_person and self.required_approvers != 1:
            raise ValueError("single_person = true needs required_approvers = 1")
        return self

    def action(self, type_name: str) -> Action:
        return self.actions.get(type_name, self.default_action)

    def cipher_or(self, of_workspace: CipherChoice) -> CipherChoice:
        """What to write with where the workspace says `of_workspace`."""
        if self.cipher == "fips":
            return "aes-256-gcm"
        return of_workspace if self.cipher == "auto" else self.cipher

    @property
    def retention_s(self) -> float:
        return parse_seconds(self.retention)

    @property
    def approval_valid_s(self) -> float:
        return parse_seconds(self.approval_valid)


def default_policy(*, single_person: bool = False) -> Policy:
    """Everything found is redacted; secrets too. Two approvers, or one where the policy says so."""
    return Policy(single_person=single_person, required_approvers=1 if single_person else 2)


def parse_policy(content: bytes, *, name: str = "policy.toml") -> Policy:
    """Raises ConfigError with the field and the rule it breaks."""
    try:
        text = content.decode()
        hint = "write one with `rsc review policy new`"
        return Policy.model_validate(parse_toml(text, name=name, hint=hint))
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{name} is not TOML: {error}", hint="write one with `rsc review policy new`"
        ) from None
    except ValidationError as error:
        raise ConfigError(
            f"{name}: {_first_problem(error)}", hint=f"see `rsc review policy lint {name}`"
        ) from None


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    field = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(field, Policy.model_fields, n=1)
        return f"unknown key {field!r}" + (f", did you mean {near[0]!r}?" if near else "")
    return f"{field}: {problem['msg']}" if field else problem["msg"]


def policy_to_toml(policy: Policy) -> bytes:
    """The policy as a commented file; parsing it gives the same policy back."""
    document = tomlkit.document()
    document.add(tomlkit.comment("Privacy policy of one data set. Signed approvals bind these bytes."))
    for name in Policy.model_fields:
        if name in ("actions", "mask_last", "reasons", "tables", "models"):
            continue
        value = getattr(policy, name)
        document.add(tomlkit.comment(_FIELD_NOTES[name]))
        document.add(name, list(value) if isinstance(value, tuple) else value)
    document.add(
        "actions", _table({name: policy.action(name) for name in (*TYPES, *policy.actions)}, notes=TYPES)
    )
    document.add("mask_last", _table(dict(policy.mask_last), notes={}))
    document.add("reasons", _table(dict(policy.reasons), notes={}))
    tables = {key: list(v) if isinstance(v, tuple) else v for key, v in policy.tables.model_dump().items()}
    document.add("tables", _table(tables, notes={}))
    if policy.models:
        document.add("models", tomlkit.item([model.model_dump() for model in policy.models]))
    else:
        for line in _MODELS_NOTE:
            document.add(tomlkit.comment(line))
    return tomlkit.dumps(document).encode()


def _table(values: dict[str, object], *, notes: dict[str, str]) -> tomlkit.items.Table:
    table = tomlkit.table()
    for key, value in values.items():
        item = tomlkit.item(value)
        if key in notes:
            item.comment(notes[key])
        table.add(key, item)
    return table


def policy_hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


_MODELS_NOTE = (
    "Names are found by a model only, one that is on this machine (rsc.review.scanner.recogniser):",
    "[[models]]",
    'engine = "presidio"                   # or "gliner"',
    'model = "en_core_web_lg"              # a spaCy package, or a folder',
    'labels = { PERSON = "person" }        # what the model calls it = person, place, organisation',
    'recall = "not measured"               # printed in every report; rsc review score --policy measures it',
)

_FIELD_NOTES = {
    "purpose": "keys are released for these purposes only: train, evaluate, export",
    "retention": "keys are destroyed when the data is older than this",
    "approval_valid": "an approval counts for this long",
    "required_approvers": "different people who must sign",
    "shared_accounts": "accounts that several people use; elsewhere one account is one person",
    "single_person": "true: the author may approve alone, and every report says so",
    "isolation": "required, best-effort or none: must workers prove that they have no route out",
    "cipher": "auto, aes-256-gcm, aegis-256, or fips: only what NIST approves",
    "who_may_train": 'user names, or "*"',
    "min_group": "the smallest group of samples that an evaluation may show",
    "code": "hashes of RSC that workers may run, as `rsc verify` prints them; empty: any",
    "region": 'country whose telephone numbers are found in local spelling, such as "DE"',
    "region_field": "text field that names each record's country; the region where it names none",
    "safeguard": "what protects people in pictures and speech, which are not scanned",
    "default_action": "for types that [actions] does not name",
}
