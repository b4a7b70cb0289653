"""IP and hardware addresses, URLs that carry a password.

RFC 791/4291/5952 for the forms of addresses, RFC 3986 section 3.2.1 for user information in a URL.
An address is personal data when it is somebody's: loopback, unspecified, broadcast, multicast,
documentation ranges of masks and version strings are refused, private ranges are kept.
"""

from __future__ import annotations

import ipaddress
import re
from itertools import islice

from rsc.review.scanner.rules.borders import NOT_GOING_ON, NOT_IN_WORD, START
from rsc.review.scanner.rules.rule import Rule, any_of
from rsc.review.scanner.rules.words import words_before

_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = re.compile(
    rf"{NOT_IN_WORD}(?<![0-9][./-]){_OCTET}(?:\.{_OCTET}){{3}}"
    rf"{NOT_GOING_ON}(?!\.[0-9])"
)
_VERSION = frozenset(
    any_of(
        "v ver version versions release released releases build firmware driver drivers chapter",
        "section clause paragraph update updated upgrade upgraded patch patched hotfix oid sdk agent",
        "browser library package plugin bios kernel",
    ).split("|")
)
_HOST = frozenset(
    any_of(
        "ip ips ipv address addresses addr host hosts server servers from ping dns gateway subnet",
        "login logged connect connected connecting client clients remote peer router network ssh",
        "proxy vpn at via firewall port",
    ).split("|")
)
_PACKAGED = re.compile(r"[A-Za-z][-_]\Z")
_PACKAGE = re.compile(
    r"(?i)\.(?:jar|zip|tar|tgz|gz|whl|exe|deb|rpm|dll|so|msi|dmg|apk|nupkg|gem)(?![A-Za-z0-9])"
)
"""Names of packages around a version of four numbers."""
_IPV6 = re.compile(
    r"(?<![0-9A-Za-z\xff])(?<![0-9A-Fa-f]{2}:)(?<!::)(?<![0-9]\.)(?:[0-9A-Fa-f]{0,4}:){2,7}(?:(?:[0-9]{1,3}\.){3}[0-9]{1,3}|[0-9A-Fa-f]{1,4}"
    r"|(?<=::))"
    r"(?:%[0-9A-Za-z]{1,15})?(?![0-9A-Za-z\xff]|:[0-9A-Fa-f:])"
)
_MAC = re.compile(
    rf"{NOT_IN_WORD}(?<![0-9A-Fa-f]{{2}}[:-])(?<![0-9A-Fa-f]{{4}}\.)"
    r"(?:[0-9A-Fa-f]{2}(?P<s>[:-])[0-9A-Fa-f]{2}(?:(?P=s)[0-9A-Fa-f]{2}){4}(?:(?:(?P=s)[0-9A-Fa-f]{2}){2})?"
    r"|[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4})(?![0-9A-Za-z\xff]|[:.-][0-9A-Fa-f])"
)
_MAC_NAMES = any_of("mac ether hwaddr bssid lladdr macaddress") + "|(?:hardware|physical|ethernet) address"
_NAMED_MAC = re.compile(
    rf"(?i)(?<![A-Za-z])(?:{_MAC_NAMES})(?: addr(?:ess)?)?(?: is)?[\"']?[ :=]{{1,3}}[\"']?"
    r"(?P<v>[0-9a-f]{12}|[0-9a-f]{6}[-:][0-9a-f]{6}|[0-9a-f]{4}(?:[ :-][0-9a-f]{4}){2}|[0-9a-f]{2}(?: "
    r"[0-9a-f]{2}){5})"
    r"(?![0-9A-Za-z\xff]|[:.-][0-9A-Fa-f])"
)
"""Notations of 48 bits that only a name tells from other numbers."""
_URL = re.compile(
    r"(?<![A-Za-z0-9+])[A-Za-z][A-Za-z0-9+.-]{1,30}://"
    r"(?P<v>[^\s/?#@:\"'<>]{0,128}:(?![0-9]{1,5}[/?#])(?:(?![?&][A-Za-z_]{1,20}=|://)[^\s\"'<>]){1,160})@[A-Za-z0-9\xff\[]"
)
"""Passwords of connection strings hold any character, `@` and `/` too: to the last `@` of the authority."""


def _is_ipv4(text: str, match: re.Match[str]) -> bool:
    """Refuses 0/8, 127/8, 224/3 (RFC 5735) and versions. Four small numbers, and
    what object identifiers begin with, need a word such as "host"."""
    octets = [int(octet) for octet in match[0].split(".")]
    if octets[0] in (0, 127) or octets[0] >= 224:
        return False
    if _PACKAGE.match(text, match.end()) or (
        octets[0] < 32
        and octets[0] != 10
        and _PACKAGED.search(text, max(0, match.start() - 2), match.start())
    ):
        return False
    words = list(islice(words_before(text, match.start()), 3))
    if not _VERSION.isdisjoint(words[:2]):
        return False
    if octets[0] in (1, 2) and octets[1] in (0, 1, 2, 3, 5, 16):
        return not _HOST.isdisjoint(words)
    return octets[0] == 10 or max(octets) >= 20 or not _HOST.isdisjoint(words)


def _is_ipv6(text: str, match: re.Match[str]) -> bool:
    try:
        address = ipaddress.IPv6Address(match[0])
    except ValueError:
        return False
    groups = [group for group in match[0].partition("%")[0].split(":") if group]
    if address.is_loopback or address.is_unspecified or len(groups) < 2:
        return False
    return len(groups) >= 3 or any(len(group) >= 3 for group in groups)


def _is_mac(text: str, match: re.Match[str]) -> bool:
    return len(set(re.sub(r"[:.-]", "", match[0]).lower())) > 1


RULES = (
    Rule(
        "ipv4",
        "ip_address",
        rf"{START}[0-9]{{1,3}}\.[0-9]{{1,3}}\.[0-9]{{1,3}}\.[0-9]",
        13,
        _IPV4,
        _is_ipv4,
        strength=1,
        least=7,
        reach=16,
        digit=True,
    ),
    Rule(
        "ipv6",
        "ip_address",
        r"[0-9A-Fa-f]::|::[0-9A-Fa-f]|(?:[0-9A-Fa-f]{1,4}:){6}",
        40,
        _IPV6,
        _is_ipv6,
        strength=1,
        least=3,
    ),
    Rule(
        "mac",
        "mac_address",
        rf"{START}(?:[0-9A-Fa-f]{{2}}(?:[:-][0-9A-Fa-f]{{2}}){{4}}"
        r"|[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f])",
        14,
        _MAC,
        _is_mac,
        strength=0,
        least=11,
        reach=24,
    ),
    Rule(
        "mac_named",
        "mac_address",
        rf"(?i)(?:{_MAC_NAMES})(?: addr(?:ess)?)?(?: is)?[\"']?[ :=]{{1,3}}[\"']?[0-9a-f]{{2}}[0-9a-f ]",
        37,
        _NAMED_MAC,
        strength=1,
        least=6,
        reach=16,
        group="v",
    ),
    Rule(
        "url_credentials",
        "url_credentials",
        r"://[^\s/?#@:]{0,128}:[^\s0-9]|://[^\s/?#@:]{0,128}:[0-9]{1,6}[^\s0-9/?#]",
        170,
        _URL,
        strength=0,
        least=6,
        reach=164,
        group="v",
    ),
)
