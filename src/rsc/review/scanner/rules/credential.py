"""Credentials where protocols and command lines put them: headers, signed URLs, options, netrc, docker.

RFC 9110 section 11 and RFC 7617 (Authorization), RFC 6750 (Bearer), the signatures of AWS (versions 2 and 4),
Google Cloud Storage and Azure (shared access signatures) in URLs, manual pages of the commands.
"""

from __future__ import annotations

import base64
import binascii
import re

from rsc.review.scanner.rules.rule import Rule, any_of

_VALUE = (
    r"(?P<q>[\"'])?(?P<v>(?(q)(?:(?!(?P=q)(?:[\s,;)}\]|]|\Z))[^\n]){1,128}"
    r"|[^\s\"'<>|;-][^\s\"'<>|;]{0,127}))"
)
"""What stands in quotes, or a word of a command line that is no option."""
_BEARER = re.compile(
    r"(?i)(?<![A-Za-z])bearer[\s:]{1,3}(?P<v>(?=[A-Z._~+/-]{0,40}[0-9])[A-Z0-9._~+/-]{16,2048}={0,2})"
)
_HEADER = re.compile(
    r"(?i)authorization[\"']?\]?\s?[:=,]\s?[\"']?"
    r"(?:(?:token|apikey|api-key|negotiate|ntlm|key|bot|oauth)[ =:]{1,2})?"
    r"(?P<v>(?=[A-Z._~+/-]{0,40}[0-9])[A-Z0-9._~+/-]{12,2048}={0,2})"
)
_BASIC = re.compile(
    r"(?i)(?:(?<![A-Za-z])basic[ :]{1,2}|[\"']auth[\"']\s?:\s?[\"'])"
    r"(?P<v>[A-Z0-9+/_-]{6,1024}={0,2})(?![A-Z0-9+/=])"
)
_SIGNED = re.compile(
    r"(?i)[?&;](?:X-Amz-(?:Signature|Security-Token|Credential)|X-Goog-(?:Signature|Credential)|signature|sig"
    r"|AWSAccessKeyId|access_token|id_token|refresh_token|api_?key|auth|token|client_secret|code)"
    r"=(?P<v>(?=[^0-9&]{0,64}[0-9])[A-Z0-9._~+/%-]{16,4096}={0,2})"
)
_NETRC = re.compile(
    r"(?<![A-Za-z])(?:machine\s{1,4}\S{1,128}|default)\s{1,8}login\s{1,4}\S{1,128}\s{1,8}password\s{1,4}"
    r"(?P<v>\S{1,128})"
)
_PGPASS = re.compile(
    r"(?<![^\n])[^\s:]{1,128}:(?:5432|5433|6432|\*):[^\s:]{1,64}:[^\s:]{1,64}:(?P<v>[^\s]{3,128})(?![^\n\r])"
)
_CLIENTS = any_of("curl wget https xh lftp aria2c rclone ab siege smbclient")
_PAIR = re.compile(
    rf"(?<![A-Za-z0-9])(?:{_CLIENTS})\s(?:[^\n]{{0,200}}?\s)?(?:-u|--user|-U|--proxy-user|-a|--auth|-A)[ =]?"
    r"(?P<q>[\"'])?(?P<v>[^\s\"':%]{1,64}[:%](?(q)(?:(?!(?P=q))[^\n]){1,128}|[^\s\"']{1,128}))"
)
_ASKING = {
    r"p(?=\S)": "mysql mysqldump mysqladmin mysqlimport mysqlshow mariadb mariadb-dump mycli",
    "p": "sshpass mongo mongosh mongodump mongorestore mongoexport mongoimport docker podman helm oras "
    "crane skopeo",
    "[pP]": "az oc nerdctl 7z 7za zip unzip rar unrar sqlplus",
    "a": "redis-cli keydb-cli valkey-cli",
    "[Pb]": "sqlcmd bcp osql isql htpasswd",
    "w": "ldapsearch ldapmodify ldapadd ldappasswd ldapdelete ldapwhoami",
    "[AX]": "snmpwalk snmpget snmpset snmpbulkwalk",
    "pass(?:in|out)?\\spass:": "openssl",
}
"""Option that takes a password -> commands that have it."""
_COMMAND_WORDS = any_of(*_ASKING.values())
_PASSWORD_COMMANDS = "|".join(
    rf"(?:{any_of(names)})(?:\s[^\n]{{0,160}}?)?\s-{option}" for option, names in _ASKING.items()
)
_COMMAND = re.compile(rf"(?<![A-Za-z0-9])(?:{_PASSWORD_COMMANDS})\s?{_VALUE}")
_OPTION = re.compile(
    r"(?<![A-Za-z0-9-])--?(?:[a-z]{1,16}-){0,3}(?:password|passwd|passphrase|pass|pwd|token|secret|api-key|apikey"
    rf"|secret-key|access-key|client-secret|private-key)[ =]{_VALUE}"
)
_SAID = any_of(
    "authtoken add-authtoken ConvertTo-SecureString IDENTIFIED\\sBY snmp-server\\scommunity enable\\ssecret "
    "enable\\spassword wpa-psk wpa_passphrase psk ClearTextPassword"
)
_PLACE = re.compile(
    rf"(?i)(?<![A-Za-z0-9_-])(?:{_SAID})(?:[\"']?\s?value=|\s?=\s?|\s)"
    r"(?:-String\s|(?:BY\s)?PASSWORD\s|[0579]\s)?" + _VALUE
)
_HASHED = re.compile(
    r"\$(?:1|5|6|7|y|gy|apr1|2[abxy]?|argon2(?:id|i|d)|scrypt|pbkdf2(?:-sha(?:1|256|512))?)\$"
    r"[A-Za-z0-9./+=,$-]{20,200}"
)
"""crypt(3): who has one can try passwords against it."""
_NET_USE = re.compile(
    r"(?i)(?<![A-Za-z])(?:net\suse|psexec|runas|cmdkey)\s[^\n]{0,160}?"
    r"(?:/user:\S{1,64}\s|/pass(?:word)?:|\s-p\s)(?P<v>(?!/)[^\s\"']{3,64})"
)
_COOKIE = re.compile(
    r"(?i)cookie2?[\"']?\s?[:=]\s?[\"']?[^\n]{0,200}?(?:sess(?:ion)?(?:_?id)?|sid|auth|token|jwt|remember_me)="
    r"(?P<v>(?=[^0-9;]{0,64}[0-9])[A-Z0-9%._~+/-]{16,2048}={0,2})"
)
_NOT_TYPED = re.compile(r"(?i)[$<{%/~]|stdin\b|env:|file:|\.{1,2}/|[a-z_]{1,12}(?:[,.):]|\Z)")
"""Variables, files, and the words of a manual page."""


def _is_typed(text: str, match: re.Match[str]) -> bool:
    return len(match["v"]) >= 3 and _NOT_TYPED.match(match["v"]) is None


def _is_said(text: str, match: re.Match[str]) -> bool:
    """A value with a digit or a sign in it: words of a manual have none."""
    value = match["v"]
    return _is_typed(text, match) and len(value) >= 6 and not value.isalpha()


def _is_command(text: str, match: re.Match[str]) -> bool:
    """Behind `-p` of a command that asks for a password anything may stand but a variable, a port, a path."""
    value = match["v"]
    return len(value) >= 3 and value[0] not in "$<{/%." and re.fullmatch(r"[0-9:]{1,11}", value) is None


def _is_pair(text: str, match: re.Match[str]) -> bool:
    """A name and a typed password."""
    _, _, password = match["v"].replace("%", ":").partition(":")
    return password[0] not in "$<{/"


def _is_basic(text: str, match: re.Match[str]) -> bool:
    """base64 of a name, a colon and a password (RFC 7617 section 2)."""
    value = match["v"].rstrip("=").replace("-", "+").replace("_", "/")
    try:
        decoded = base64.b64decode(value + "=" * (-len(value) % 4), validate=True)
    except binascii.Error:
        return False
    return b":" in decoded and decoded.isascii() and decoded.decode().isprintable()


RULES = (
    Rule("bearer_token", "secret", r"(?i)bearer[\s:]", 7, _BEARER, strength=1, least=7, reach=64, group="v"),
    Rule(
        "authorization",
        "secret",
        r"(?i)authorization[\"']?\]?\s?[:=,]",
        17,
        _HEADER,
        strength=1,
        least=14,
        reach=64,
        group="v",
    ),
    Rule(
        "basic_credentials",
        "secret",
        r"(?i)basic[ :]{1,2}[a-z0-9+/_-]{6}|[\"']auth[\"']\s?:\s?[\"']",
        15,
        _BASIC,
        _is_basic,
        strength=1,
        least=9,
        group="v",
    ),
    Rule(
        "signed_url",
        "secret",
        r"(?i)[?&;](?:x-(?:amz|goog)-[a-z-]{4,14}|signature|sig|awsaccesskeyid|[a-z]{2,7}_token|api_?key|auth|token"
        r"|client_secret|code)=[a-z0-9._~+/%-]{8}",
        32,
        _SIGNED,
        strength=1,
        least=12,
        group="v",
    ),
    Rule(
        "netrc",
        "secret",
        r"(?:machine|default)\s",
        8,
        _NETRC,
        strength=1,
        least=8,
        head=re.compile(r"(?:machine|default)\s"),
        group="v",
    ),
    Rule(
        "pgpass",
        "secret",
        r":(?:5432|5433|6432|\*):[^\s:]{1,64}:[^\s:]{1,64}:",
        270,
        _PGPASS,
        strength=1,
        least=7,
        reach=130,
        group="v",
    ),
    Rule(
        "login_option",
        "secret",
        rf"(?:{_CLIENTS})\s",
        10,
        _PAIR,
        _is_pair,
        strength=1,
        least=3,
        head=re.compile(rf"(?<![A-Za-z0-9])(?:{_CLIENTS})\s"),
        group="v",
    ),
    Rule(
        "password_command",
        "secret",
        rf"(?:{_COMMAND_WORDS})\s",
        15,
        _COMMAND,
        _is_command,
        strength=1,
        least=3,
        head=re.compile(rf"(?<![A-Za-z0-9])(?:{_COMMAND_WORDS})\s"),
        group="v",
    ),
    Rule(
        "password_said",
        "secret",
        rf"(?i)(?:{_SAID})[\"' =]",
        26,
        _PLACE,
        _is_said,
        strength=1,
        least=4,
        reach=160,
        group="v",
    ),
    Rule(
        "password_hash",
        "secret",
        r"\$(?:1|5|6|7|y|gy|apr1|2[abxy]?|argon2[a-z]{1,2}|scrypt|pbkdf2[a-z0-9-]{0,7})\$[A-Za-z0-9./+=,$-]{4}",
        20,
        _HASHED,
        strength=1,
        least=7,
    ),
    Rule(
        "password_windows",
        "secret",
        r"(?i)(?:net\suse|psexec|runas|cmdkey)\s",
        8,
        _NET_USE,
        strength=1,
        least=6,
        head=re.compile(r"(?i)(?<![A-Za-z])(?:net\suse|psexec|runas|cmdkey)\s"),
        group="v",
    ),
    Rule(
        "session_cookie",
        "secret",
        r"(?i)cookie2?[\"']?\s?[:=]",
        10,
        _COOKIE,
        strength=1,
        least=7,
        head=re.compile(r"(?i)cookie2?[\"']?\s?[:=]"),
        group="v",
    ),
    Rule(
        "password_option",
        "secret",
        r"--?(?:[a-z]{1,16}-){0,3}(?:passw|passphrase|pass|pwd|token|secret|api-?key|access-key|private-key)",
        66,
        _OPTION,
        _is_typed,
        strength=1,
        least=5,
        head=re.compile("(?<![A-Za-z0-9-])--?[a-z]"),
        group="v",
    ),
)
