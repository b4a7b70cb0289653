"""A field's name as the label of its values: `passport_no`, `Telefon`, `fecha_nacimiento`, `dateOfBirth`.

A value such as "X1234567" or "07.03.84" says little; in a form its label would stand before it, and in a
record the name of the field does. Names that say nothing about their values (`text`, `order_id`) label none.
"""

from __future__ import annotations

import re
from functools import cache

from rsc.review.scanner.normalise import fold_value
from rsc.review.scanner.rules.national_names import GENERIC, NAMES
from rsc.review.scanner.rules.rule import any_of
from rsc.review.scanner.rules.words import BIRTH, CALLS, PHONE, SENTENCE_WORDS, SOCIAL_SECURITY

_OTHERS = frozenset(
    any_of(
        "passport passeport reisepass pasaporte passaporto passaporte paspoort paszport licence "
        "license fuhrerschein rijbewijs ausweis account acct iban konto compte cuenta conto card "
        "karte kreditkarte carte tarjeta carta cartao kort kaart address adresse adres adresa "
        "indirizzo direccion endereco anschrift strasse domicilio morada osoite street password "
        "passwd passwort kennwort contrasena wachtwoord losenord parola senha haslo heslo pwd secret "
        "token username login instagram twitter telegram latitude longitude lat lng lon coordinates "
        "gps mac bssid nationalid taxid personalid identitynumber nationalnumber",
    ).split("|")
)
_LABELS = (
    (PHONE | CALLS | BIRTH | SOCIAL_SECURITY | NAMES | _OTHERS)
    - SENTENCE_WORDS
    - GENERIC
    - frozenset(any_of("number num nummer numero security sec soc fax id contact is ne ni").split("|"))
)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z\xff]+|[^\W\d_a-zA-Z]+")
LONGEST_VALUE = 120
"""Characters of a value that a field's name labels; longer ones are text, which has its own labels."""


@cache
def field_label(name: str) -> str:
    """What would stand before the field's values in a form, with a colon; or nothing."""
    words = [word.lower() for word in _WORD.findall(fold_value(re.sub(r"[_.-]", " ", name)))]
    joined = "".join(words)
    known = _LABELS.intersection([*words, joined])
    return f"{' '.join(words)}: " if known else ""
