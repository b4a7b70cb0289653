"""US social security numbers, and national identifiers with a check digit, by the rules of their offices.

A number whose own structure makes a chance match rarer than 1 in 1,000 (date and two check digits, a
check over letters) is taken as it is; the others need their name, or a word such as "id", before them.
"""

from __future__ import annotations

import re

from rsc.review.rules.rule import Rule

_BEFORE = r"(?<![0-9A-Za-z_\xff])(?<![0-9][.,:/-])(?<![+#])"
_AFTER = r"(?![0-9A-Za-z_\xff]|[.,:/-][0-9])"
_SSN_FORM = r"(?!000|666|9[0-9]{2})[0-9]{3}%s(?!00)[0-9]{2}%s(?!0000)[0-9]{4}"
_SSN = re.compile(_BEFORE + _SSN_FORM % ("(?P<s>[- ])", "(?P=s)") + _AFTER)
_ITIN = re.compile(rf"{_BEFORE}9[0-9]{{2}}-(?:5[0-9]|6[0-5]|7[0-9]|8[0-8]|9[0-24-9])-[0-9]{{4}}{_AFTER}")
_SSN_IN_CONTEXT = re.compile(
    r"(?i)(?<![A-Za-z])(?:ssn|social security|soc sec|social|taxpayer id|tin)(?: (?:number|no\.?|num|nr))?[^0-9A-Za-z\n]{0,8}"
    r"(?:is |was |of |number )?[^0-9A-Za-z\n]{0,3}(?P<v>" + _SSN_FORM % ("[-. ]?", "[-. ]?") + ")" + _AFTER
)  # fmt: skip

RULES = (
    Rule("us_ssn", "ssn", r"[0-9]{3}[- ][0-9]{2}[- ][0-9]{4}", 12, _SSN, strength=2),
    Rule("us_itin", "ssn", r"9[0-9]{2}-[5-9][0-9]-[0-9]{4}", 12, _ITIN, strength=2),
    Rule("us_ssn_in_context", "ssn", r"(?i)(?:ssn|sec(?:urity)?|social|tin|id)[^0-9\n]{0,24}[0-9]{3}[-. ]?[0-9]{2}[-. ]?[0-9]{4}", 72,
         _SSN_IN_CONTEXT, strength=1),
)  # fmt: skip
