from __future__ import annotations

import pytest

from rsc.errors import ConfigError
from rsc.review.explain import explain, lint
from rsc.review.findings import TYPES
from rsc.review.policy import ACTIONS, Policy, default_policy, parse_policy, policy_to_toml


@pytest.mark.parametrize("single_person", [True, False])
def test_written_policy_parses_to_itself(single_person):
    policy = default_policy(single_person=single_person)
    again = parse_policy(policy_to_toml(policy))
    assert {name: again.action(name) for name in TYPES} == {name: policy.action(name) for name in TYPES}
    assert again.model_copy(update={"actions": {}}) == policy
    assert policy_to_toml(again) == policy_to_toml(policy)


def test_every_type_and_field_is_in_the_written_file():
    content = policy_to_toml(default_policy()).decode()
    assert all(f"{name} = " in content for name in TYPES)
    assert all(name in content for name in Policy.model_fields)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("retenton = '3d'", "did you mean 'retention'"),
        ("retention = '3 lightyears'", "is not a duration"),
        ("retention = '0d'", "longer than nothing"),
        ("[actions]\nemial = 'drop'", "did you mean 'email'"),
        ("[actions]\nemail = 'burn'", "actions.email"),
        ("[actions]\nemail = 'allow'", "needs a reason"),
        ("default_action = 'allow'", "needs a reason"),
        ("single_person = true", "required_approvers = 1"),
        ("required_approvers = 0", "required_approvers"),
        ("x = ", "not TOML"),
    ],
)
def test_bad_policies_name_the_field_and_the_rule(line, message):
    with pytest.raises(ConfigError, match=message):
        parse_policy(line.encode())


@pytest.mark.parametrize(
    ("pin", "of_workspace", "chosen", "said"),
    [
        ("auto", "auto", "auto", None),
        ("auto", "aegis-256", "aegis-256", None),
        ("fips", "aegis-256", "aes-256-gcm", "what NIST approves only"),
        ("aes-256-gcm", "aegis-256", "aes-256-gcm", "encrypted with AES-256-GCM"),
        ("aegis-256", "aes-256-gcm", "aegis-256", "which NIST does not approve"),
    ],
)
def test_a_pinned_cipher_wins_and_is_explained(pin, of_workspace, chosen, said):
    policy = parse_policy(f"cipher = '{pin}'".encode())
    assert policy.cipher_or(of_workspace) == chosen
    text = " ".join(explain(policy))
    assert said in text if said else "encrypted with" not in text


def test_explain_says_every_action_and_what_is_not_covered():
    policy = parse_policy(
        b"single_person = true\nrequired_approvers = 1\nsafeguard = 'people agreed in writing'\n"
        b"[actions]\nemail = 'pseudonymise'\nhandle = 'allow'\nsecret = 'reject'\nssn = 'drop'\n"
        b"phone = 'mask'\n"
        b"[reasons]\nhandle = 'public figures only'\n[tables]\nquasi_identifiers = ['zip', 'age']\n"
    )
    text = "\n".join(explain(policy))
    for expected in (
        *ACTIONS.values(),
        "ONE person",
        "public figures only",
        "zip and age",
        "people agreed",
        "names of",
    ):
        assert expected in text


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("isolation = 'none'", "isolation"),
        ("single_person = true\nrequired_approvers = 1", "single_person"),
        ("retention = '800d'", "retention"),
        ("approval_valid = '100d'", "approval_valid"),
        ("[actions]\nemail = 'allow'\n[reasons]\nemail = 'x'", "actions.email"),
        ("[reasons]\nemail = 'x'", "reasons.email"),
        ("[tables]\nl = 2", "tables"),
    ],
)
def test_lint_names_the_weak_spot(line, field):
    assert field in [remark.field for remark in lint(parse_policy(line.encode()))]


def test_a_strict_policy_has_nothing_to_ask():
    assert lint(parse_policy(b"isolation = 'required'\nwho_may_train = ['ana']")) == []
