"""What may stand directly beside a value. Values are found beside any delimiter: text is CSV, JSON, logs and
URLs as often as sentences. What keeps look-alikes out is the number that goes on: decimals, versions and
identifiers in groups have another digit behind their point or dash.
"""

from __future__ import annotations

LETTERS = r"0-9A-Za-z\xff"
NOT_IN_WORD = rf"(?<![{LETTERS}])"
NOT_GOING_ON = rf"(?![{LETTERS}])"
_IN_UUID = r"(?<![0-9A-Fa-f]{4}-)"
_UUID_GOES_ON = r"-[0-9A-Fa-f]{4}(?![0-9A-Za-z])"
NUMBER_BEFORE = rf"{NOT_IN_WORD}(?<![0-9][.-]){_IN_UUID}"
"""Before digits: no letter or digit, no `3.` of a decimal, no `3-` or UUID that goes on."""
NUMBER_AFTER = rf"(?![{LETTERS}]|\.[0-9]|-[0-9]|{_UUID_GOES_ON})"
NOT_IN_ROW = r"(?:(?<![0-9] )|(?<=:[0-9]{2} )|(?<=-[0-9]{2} ))"
"""Not in the middle of numbers with spaces between, unless those are a date or a time."""
START = r"(?:^|[^0-9A-Za-z])"
"""`NOT_IN_WORD` for triggers."""
HOUSE_BEFORE = rf"(?<![{LETTERS}$])(?<![0-9][.-])(?<![0-9]/)(?<![0-9]:(?=[0-9]{{2}}[^0-9A-Za-z]))"
"""Before a house number: no amount, decimal, range or time."""
