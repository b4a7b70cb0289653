"""Parts of a postal address below the street: units, towns, postcodes, countries, in the orders posts print.

Forms are those of the Universal Postal Union's addressing guide (S42 templates by country): postcode before
the town (most of Europe), behind it (English-speaking countries, India, Spain's and Latin America's common
use), or on a line of its own (United Kingdom, Netherlands).
"""

from __future__ import annotations

from rsc.review.scanner.rules.rule import any_of

CAPITAL = r"A-Z\xff"
WORD = rf"[{CAPITAL}][A-Za-z\xff'.-]{{0,24}}"
"""A capitalised word of a street or town."""
_SMALL_WORDS = any_of(
    "de del della dei di da do dos das la las los le les du des of the van der den am im an bei sur in",
    "vor vorm nad pod pri ob upon on y e a.d.",
)
_SMALL = rf"(?:(?:{_SMALL_WORDS}) |d'|l'|'s-)"
NAME = rf"{_SMALL}{{0,2}}{WORD}(?:[ -]{_SMALL}{{0,2}}{WORD}){{0,4}}"
"""One to five capitalised words with the small ones between."""

_LINE_END = r"\s{0,2}\n[>?|* ]{0,8}\s{0,6}(?:, )?"
"""With the marks that mail programs put before a quoted line, and a comma that slipped to the next line."""
GAP = rf"(?:\s?,\s{{0,6}}|{_LINE_END}|\s{{1,2}})"
BREAK = rf"(?:\s?,\s{{0,6}}|{_LINE_END})"
"""What stands between two lines of an address, also when it is printed in one, or quoted in a mail."""

UNIT_WORDS = any_of(
    "apt apartment suite ste flat appartement appt lgh leil puerta piso departamento depto dpto interior",
    "appartamento dto dpto edif torre etage stiege apto andar daire wohnung oficina piano",
)
_UNIT_WORDS_INSIDE = any_of(
    "unit floor fl room rm bldg building local bloco bl sc ap et top tur studio shop level lot rd",
)
UNIT = (
    rf"(?:(?i:{UNIT_WORDS}|{_UNIT_WORDS_INSIDE})\.? ?(?:no\.? ?|n\xb0 ?)?"
    r"#?[0-9A-Z]{1,2}[0-9]{0,4}[A-Za-z]?(?![A-Za-z0-9])|#\s?[0-9]{1,5})"
)
US_STATES = any_of(
    "AL AK AZ AR CA CO CT DE FL GA HI ID IL IN IA KS KY LA ME MD MA MI MN MS MO MT NE NV NH NJ NM NY NC ND",
    "OH OK OR PA RI SC SD TN TX UT VT VA WA WV WI WY DC PR VI GU AS MP FM MH PW AA AE AP",
)
AU_STATES = any_of("NSW VIC QLD SA WA TAS NT ACT")
_STATE_NAMES = (
    "Alabama|Alaska|Arizona|Arkansas|California|Colorado|Connecticut|Delaware|Florida|Georgia|Hawaii|Idaho"
    "|Illinois|Indiana|Iowa|Kansas|Kentucky|Louisiana|Maine|Maryland|Massachusetts|Michigan|Minnesota"
    "|Mississippi|Missouri|Montana|Nebraska|Nevada|New (?:Hampshire|Jersey|Mexico|York|South Wales)"
    "|North (?:Carolina|Dakota)|Ohio|Oklahoma|Oregon|Pennsylvania|Rhode Island|South (?:Carolina|Dakota"
    "|Australia)|Tennessee|Texas|Utah|Vermont|(?:West )?Virginia|Washington|Wisconsin|Wyoming|Puerto Rico"
    "|Victoria|Queensland|Tasmania|Western Australia|Ontario|Quebec|British Columbia|Alberta|Manitoba"
    "|Saskatchewan|Nova Scotia"
)
BRITISH = r"[A-Z]{1,2}[0-9][0-9A-Z]? ?[0-9][ABD-HJLNP-UW-Z]{2}"
"""Royal Mail: no C I K M O V in the last two letters."""
CANADIAN = r"[ABCEGHJ-NPRSTVXY][0-9][A-Z] ?[0-9][A-Z][0-9]"
IRISH = r"[ACDEFHKNPRTVWXY][0-9][0-9W] ?[0-9A-Z]{4}"
_STATE_AND_CODE = (
    rf"(?:(?:{US_STATES}),? [0-9]{{5}}(?:-[0-9]{{4}})?|(?:{AU_STATES}),? [0-9]{{4}}"
    rf"|(?:[A-Z]{{2}},? )?{CANADIAN})"
)
_DIGITS = (
    r"(?:[0-9]{5}-[0-9]{3,4}|[0-9]{4}-[0-9]{3}|[0-9]{2}-[0-9]{3}|[0-9]{3} [0-9]{2,3}|[0-9]{4} ?[A-Z]{2}"
    r"|[0-9]{4,8})"
)
POSTCODE = rf"(?:(?:{_STATE_AND_CODE}|{BRITISH}|{IRISH}|(?:[A-Z]{{1,3}}-)?{_DIGITS})(?![0-9A-Za-z\xff]))"
_COUNTRY = any_of(
    "Afghanistan Albania Algeria Andorra Angola Anguilla Argentina Armenia Aruba Australia Austria",
    "Azerbaijan Bahamas Bahrain Bangladesh Barbados Belarus Belgium Belize Benin Bermuda Bhutan Bolivia",
    "Botswana Brazil Bulgaria Burundi Cambodia Cameroon Canada Chad Chile China Colombia Comoros Congo",
    "Croatia Cuba Curacao Cyprus Czechia Denmark Djibouti Dominica Ecuador Egypt Eritrea Estonia",
    "Eswatini Ethiopia Fiji Finland France Gabon Gambia Georgia Germany Ghana Gibraltar Greece",
    "Greenland Grenada Guadeloupe Guam Guatemala Guernsey Guinea Guyana Haiti Honduras Hungary Iceland",
    "India Indonesia Iran Iraq Ireland Israel Italy Jamaica Japan Jersey Jordan Kazakhstan Kenya",
    "Kiribati Korea Kosovo Kuwait Kyrgyzstan Laos Latvia Lebanon Lesotho Liberia Libya Liechtenstein",
    "Lithuania Luxembourg Macao Macau Madagascar Malawi Malaysia Maldives Mali Malta Martinique",
    "Mauritania Mauritius Mayotte Mexico Micronesia Moldova Monaco Mongolia Montenegro Montserrat",
    "Morocco Mozambique Myanmar Namibia Nauru Nepal Netherlands Nicaragua Niger Nigeria Niue Norway",
    "Oman Pakistan Palau Palestine Panama Paraguay Peru Philippines Poland Portugal Qatar Reunion",
    "Romania Russia Rwanda Samoa Senegal Serbia Seychelles Singapore Slovakia Slovenia Somalia Spain",
    "Sudan Suriname Sweden Switzerland Syria Taiwan Tajikistan Tanzania Thailand Togo Tokelau Tonga",
    "Tunisia Turkey Turkiye Turkmenistan Tuvalu Uganda Ukraine Uruguay Uzbekistan Vanuatu Venezuela",
    "Vietnam Yemen Zambia Zimbabwe USA U\\.S\\.A\\. UK UAE Deutschland Schweiz Suisse Osterreich Espana",
    "Italia Belgique Nederland Danmark Sverige Norge Suomi Polska Brasil Espanha",
)
_LONG_COUNTRY = (
    r"(?:Aland|Bouvet|Cayman|Christmas|Cocos(?: \(Keeling\))?|Cook|Falkland|Faroe|Marshall|Norfolk|Pitcairn"
    r"|Northern Mariana|Solomon|Turks and Caicos|United States (?:Minor Outlying|Virgin)|Virgin) Islands?"
    r"|United (?:States(?: of America)?|Kingdom|Arab Emirates)|South (?:Africa|Korea|Sudan)"
    r"|North (?:Korea|Macedonia)|New (?:Zealand|Caledonia)|(?:Czech|Slovak|Dominican) Republic|Saudi Arabia"
    r"|Sri Lanka|Costa Rica|El Salvador|Hong Kong|Puerto Rico|San Marino|Sierra Leone|Burkina Faso"
    r"|Cape Verde|Cabo Verde|Ivory Coast|Cote d'Ivoire|Timor-Leste|Viet Nam|Equatorial Guinea"
    r"|Holy See(?: \(Vatican City State\))?|Vatican City|Papua New Guinea|Guinea-Bissau"
    r"|Slovakia \(Slovak Republic\)|Central African Republic|Russian Federation|Syrian Arab Republic"
    r"|Libyan Arab Jamahiriya|Lao People's Democratic Republic|Brunei(?: Darussalam)?|Western Sahara"
    r"|French (?:Guiana|Polynesia|Southern Territories)|American Samoa|Netherlands Antilles|Isle of Man"
    r"|British (?:Indian Ocean Territory(?: \(Chagos Archipelago\))?|Virgin Islands)|Palestinian Territory"
    r"|Antarctica(?: \(the territory South of 60 deg S\))?|Antigua and Barbuda|Bosnia and Herzegovina"
    r"|(?:Saint|St\.?) (?:Lucia|Martin|Helena|Barthelemy|Kitts and Nevis|Pierre and Miquelon"
    r"|Vincent and the Grenadines)|Trinidad and Tobago|Sao Tome and Principe|Wallis and Futuna"
    r"|Heard Island and McDonald Islands|Svalbard (?:& |and )?Jan Mayen(?: Islands)?"
    r"|South Georgia and the South Sandwich Islands"
)
_COUNTRIES = rf"(?:{_LONG_COUNTRY}|{_COUNTRY})"
"""English short names of ISO 3166-1 and what their own people write, folded to ASCII."""
_IN_BRACKETS = r"(?: ?\([A-Za-z]{2,10}\)| ?/ ?[A-Z]{2}(?![A-Za-z]))"
_LINE = rf"(?:{UNIT}|{NAME}{_IN_BRACKETS}?|[A-Z]{{2,4}}|[0-9]{{2}})"
_REGION = rf"(?:{US_STATES}|{AU_STATES}|{_STATE_NAMES}|{_COUNTRIES})(?![A-Za-z\xff])"
REST = (
    rf"(?:(?:{GAP}{UNIT}){{1,3}}{GAP}{NAME},?{GAP}{_REGION}(?:{GAP}{POSTCODE})?"
    rf"|(?:{GAP}{UNIT}){{0,3}}"
    rf"(?:(?:{BREAK}{_LINE}){{0,4}}(?:{GAP}|-){POSTCODE}(?:{GAP}{NAME}(?:/{WORD})?{_IN_BRACKETS}?)?"
    rf"|(?:{BREAK}{_LINE}){{0,3}}{BREAK}(?:{_COUNTRIES}|(?:Region|Provincia|Departamento) "
    rf"{NAME})(?![A-Za-z\xff])(?:{GAP}{POSTCODE})?"
    rf"|{BREAK}{NAME},\s(?:{US_STATES}|{AU_STATES}|{_STATE_NAMES})(?![A-Za-z]))?)"
)
"""Whatever follows a street: units, then lines of towns, if a postcode, state or country ends them. Behind a
unit a town and its state or country may also stand in the same line, with nothing between."""
