"""The names of national identifiers, and whose check each one asks for."""

from __future__ import annotations

from collections.abc import Callable

from rsc.review.scanner.rules import national_checks as checks
from rsc.review.scanner.rules.rule import any_of

GENERIC = frozenset(
    any_of(
        "identity identification national citizen resident tax taxpayer fiscal fiscale personal insurance "
        "nationality",
        "identite identidad identidade identita identitat identiteit tozsamosci",
    ).split("|")
)
NAMED: dict[str, tuple[Callable[[str], bool], ...]] = {
    word: tested
    for words, tested in (
        ("steuer steuerid steueridentifikationsnummer idnr steuernummer", (checks.germany_tax_id,)),
        ("personnummer personnr", (checks.sweden_personal, checks.norway_birth)),
        ("samordningsnummer", (checks.sweden_personal,)),
        ("fodselsnummer", (checks.norway_birth,)),
        ("cpr", (checks.denmark_cpr,)),
        ("kennitala", (checks.iceland_kennitala,)),
        ("isikukood asmens", (checks.baltic_code,)),
        ("personas", (checks.latvia_code,)),
        ("pesel", (checks.poland_pesel,)),
        ("rodne", (checks.czech_birth,)),
        ("cnp", (checks.romania_cnp,)),
        ("egn", (checks.bulgaria_egn,)),
        ("oib", (checks.croatia_oib,)),
        ("jmbg emso embg", (checks.yugoslav_jmbg,)),
        ("amka", (checks.greece_amka,)),
        ("nif contribuinte", (checks.portugal_nif,)),
        ("bsn burgerservicenummer sofinummer", (checks.netherlands_bsn,)),
        ("rijksregisternummer rijksregister niss nrn", (checks.belgium_national,)),
        ("svnr sozialversicherungsnummer versicherungsnummer", (checks.austria_insurance,)),
        ("nhs", (checks.uk_nhs,)),
        ("tckn kimlik", (checks.turkey_identity,)),
        ("snils", (checks.russia_snils,)),
        ("inn", (checks.russia_inn,)),
        ("rnokpp", (checks.ukraine_tax,)),
        ("teudat zehut", (checks.israel_identity,)),
        ("sin", (checks.canada_sin,)),
        ("tfn", (checks.australia_tfn,)),
        ("medicare", (checks.australia_medicare,)),
        ("ird", (checks.new_zealand_ird,)),
        ("aadhaar aadhar uidai", (checks.india_aadhaar,)),
        ("mynumber", (checks.japan_my_number,)),
        ("mykad", (checks.malaysia_identity,)),
        ("cpf", (checks.brazil_cpf,)),
        ("cuil cuit", (checks.argentina_cuil,)),
        ("taj", (checks.hungary_taj,)),
        ("adoazonosito", (checks.hungary_tax_id,)),
        ("nss imss", (checks.mexico_nss,)),
        ("cedula", (checks.ecuador_cedula, checks.dominican_cedula)),
    )
    for word in words.split()
}
_OF_FORMS = frozenset(
    any_of(
        "dni nie nir insee cf codicefiscale codice nino ni insurance pps ppsn pan hetu henkilotunnus "
        "ahv avs oasi rut run curp nric fin hkid rrn ssn rg cnic idnp personalausweis steuerid",
    ).split("|")
)
"""Names of identifiers that have a form of their own (national_forms.py)."""
NAMES = GENERIC | frozenset(NAMED) | _OF_FORMS
LONG_NAMES = frozenset(word for word in GENERIC | frozenset(NAMED) if len(word) >= 5)
SHORT_NAMES = frozenset(NAMED) - LONG_NAMES
"""Bare digits behind them have a rule for each."""
