"""The name of a field is the label of its values."""

from __future__ import annotations

import pytest

from rsc.review.field_label import LONGEST_VALUE, field_label
from rsc.review.gate import RecordGate
from rsc.review.policy import default_policy

NAMED = {
    "phone": ["phone", "phoneNumber", "telefon", "numer_telefonu", "T\u00e9l\u00e9phone", "puhelin",
              "telefono",
              "gsm", "\u0442\u0435\u043b\u0435\u0444\u043e\u043d",
              "\u043d\u043e\u043c\u0435\u0440_\u0442\u0435\u043b\u0435\u0444\u043e\u043d\u0430",
              "\u96fb\u8a71\u756a\u53f7", "\ud734\ub300\ud3f0", "\u05d8\u05dc\u05e4\u05d5\u05df"],
    "date_of_birth": ["dob", "dateOfBirth", "birth_date", "Geburtsdatum", "date_naissance",
                      "fecha_nacimiento", "data_nascita", "data_nascimento", "geboortedatum",
                      "fodselsdato", "syntymaaika",
                      "data_urodzenia", "datum_narozeni", "dogum_tarihi", "\u751f\u5e74\u6708\u65e5"],
    "ssn": ["ssn", "SSN", "social_security_no"],
    "id_document": ["passport_no", "passportNumber", "Reisepass", "pasaporte", "passaporto"],
    "secret": ["password", "db_password", "Passwort", "contrasena"],
}  # fmt: skip
VALUES = {
    "phone": "2125550134",
    "date_of_birth": "07.03.1984",
    "ssn": "536904399",
    "id_document": "X1234567",
    "secret": "hunter2!x",
}


@pytest.mark.parametrize("kind", NAMED)
def test_a_bare_value_is_found_by_its_fields_name(kind):
    gate = RecordGate(default_policy(single_person=True))
    for name in NAMED[kind]:
        gated = gate.pass_record({name: VALUES[kind]}, fields=(name,))
        assert gated.record == {name: f"[{kind.upper()}]"}, name
        (found,) = gated.findings[name]
        assert (found.start, found.end) == (0, len(VALUES[kind]))


@pytest.mark.parametrize(
    "name", ["text", "body", "message", "order_id", "user_id", "id", "number", "data", "age", ""]
)
@pytest.mark.parametrize("value", ["2125550134", "07.03.1984", "536904399", "X1234567"])
def test_names_that_say_nothing_label_nothing(name, value):
    assert field_label(name) == ""
    gated = RecordGate(default_policy(single_person=True)).pass_record({name: value}, fields=(name,))
    assert gated.record == {name: value}


def test_a_long_text_is_not_labelled_and_one_by_one_is_as_together():
    gate = RecordGate(default_policy(single_person=True))
    records = [
        {"phone": "2125550134"},
        {"phone": "2125550134 " + "x" * LONGEST_VALUE},
        {"phone": ""},
        {"phone": None},
    ]
    assert gate.pass_records(records, fields=("phone",)) == [
        gate.pass_record(r, fields=("phone",)) for r in records
    ]
    assert gate.pass_record(records[1], fields=("phone",)).record == records[1]
