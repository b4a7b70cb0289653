"""E-mail addresses, spelled-out e-mail addresses, account handles.

RFC 5321 section 4.5.3.1 bounds a local part by 64 and a domain by 255 octets; RFC 5322 section 3.4.1
allows more characters in a local part than people use: `= / ? | { }` are taken as delimiters here,
because in running text they nearly always are.
"""

from __future__ import annotations

import re

from rsc.review.scanner.rules.rule import Rule, any_of

_WORD = r"A-Za-z0-9\xff"
_LABEL = rf"[{_WORD}](?:[{_WORD}-]{{0,61}}[{_WORD}])?"
_TOP_LEVELS = any_of(
    "com org net edu gov info io co ai app dev me biz mil int de fr es it nl be ch at pl se no dk fi pt ie "
    "uk us ca au nz",
    "in jp kr cn br mx ar cl za ru ua cz sk hu ro bg gr tr il eu",
)
_FILES = any_of(
    "png jpg jpeg gif svg webp ico js css html htm pdf tgz gz json xml yml yaml txt exe dll log "
    "csv md doc docx zip eml",
)
_TOP = rf"(?:xn--[A-Za-z0-9-]{{2,59}}|(?!(?i:{_FILES})(?![{_WORD}]))[A-Za-z\xff]{{2,24}})"
_DOMAIN = rf"(?:(?:{_LABEL}\.){{1,8}}{_TOP}|\[[0-9.]{{7,15}}\])"
_LOCAL = rf"[{_WORD}_](?:[{_WORD}_.+'&%~#!$*^-]{{0,62}}[{_WORD}_+'~!$*^-])?"
_EMAIL_HEAD = rf"(?<![{_WORD}_])(?<![{_WORD}_][.+-])(?:{_LOCAL}|\"[^\"\n]{{1,64}}\")(?:@|%40)"
_EMAIL = re.compile(
    rf"{_EMAIL_HEAD}(?:{_DOMAIN}(?![{_WORD}]|\.[{_WORD}])|(?:{_LABEL}\.){{1,8}}(?i:{_TOP_LEVELS})(?=\.(?i:{_FILES})(?![{_WORD}])))"
)


def _is_address(text: str, match: re.Match[str]) -> bool:
    local = match[0].replace("%40", "@").rpartition("@")[0]
    if ".." in local and local[0] != '"':
        return False
    return not (local == "git" and text[match.end() : match.end() + 1] in (":", "/"))


_NOT_A_HOST = re.compile(r"(?i)\s(?:at)\s(?:the|a|an|this|that|every|each|my|your|our|their|some|any)\s")


def _is_spelled(text: str, match: re.Match[str]) -> bool:
    """ "look at the dot com" is English, not an address."""
    return _NOT_A_HOST.search(match[0]) is None


_OPEN, _CLOSE = r"[\[({<]\s?", r"\s?[\])}>]"
_DOT = rf"(?:\s?{_OPEN}(?:dot|DOT|Dot|\.|punkt|point|punto){_CLOSE}\s?|\s(?:dot|DOT|Dot)\s)"
_AT = rf"\s?{_OPEN}(?:at|@|AT|At|arroba|chez){_CLOSE}\s?"
_SPELLED_LOCAL = rf"[{_WORD}_](?:[{_WORD}_.+-]{{0,40}}[{_WORD}_])?(?:{_DOT}[{_WORD}_-]{{1,30}}){{0,3}}"
_BRACKETED_HEAD = rf"(?<![{_WORD}_.+-]){_SPELLED_LOCAL}{_AT}"
_BRACKETED = re.compile(
    rf"{_BRACKETED_HEAD}{_LABEL}(?:(?:{_DOT}|\.){_LABEL}){{0,4}}(?:{_DOT}"
    rf"|\.)[A-Za-z\xff]{{2,24}}(?![{_WORD}_-])"
)
_SPELLED = re.compile(
    rf"(?<![{_WORD}_.+-]){_SPELLED_LOCAL}\s(?:at|AT"
    rf"|At)\s{_LABEL}(?:{_DOT}{_LABEL}){{0,3}}{_DOT}(?i:{_TOP_LEVELS})"
    rf"(?![{_WORD}_-])"
)
_SPACED = re.compile(
    rf"(?<![{_WORD}_.+-])(?P<l>{_LOCAL})(?:\s@\s{_LABEL}(?:\s?\.\s?{_LABEL}){{0,3}}\s?\.\s?"
    rf"|@{_LABEL}(?:\s\.\s{_LABEL}){{0,3}}\s\.\s"
    rf"|_at_{_LABEL}(?:_dot_{_LABEL}){{0,3}}_dot_)(?i:{_TOP_LEVELS})(?![{_WORD}_-])"
)
_MAIL_SERVICES = any_of(
    "gmail googlemail yahoo ymail hotmail outlook live msn icloud aol proton protonmail gmx web mail "
    "yandex qq",
    "fastmail zoho comcast verizon orange wanadoo free laposte libero tiscali virgilio btinternet rediffmail",
    "naver sina",
)
_SAID_AT = re.compile(
    rf"(?<![{_WORD}_.+@-])(?P<l>{_LOCAL})\sat\s(?:(?:{_MAIL_SERVICES})\.[a-z]{{2,3}}(?:\.[a-z]{{2}})?"
    rf"|(?P<o>(?:{_LABEL}\.){{1,4}}(?:{_TOP_LEVELS})))(?![{_WORD}_@-]|\.[{_WORD}])"
)
_NOT_LOCAL = frozenset(
    any_of(
        "me us you it is are was were be am look here there now available online reach write mail email "
        "address "
        "account contact meet also more out up in on hosted found live blog site store shop buy him her "
        "them see",
    ).split("|")
)
_HANDLE = re.compile(
    r"(?<![A-Za-z0-9@\xff])@(?=[0-9_.]*[A-Za-z])[A-Za-z0-9_](?:[A-Za-z0-9_.]{0,28}[A-Za-z0-9_])"
    r"(?![A-Za-z0-9_(@\xff]|/[a-z]|[\"']\s?:)"
)
_LINE_BEGINS = re.compile(r"(?:\A|\n)[ \t]{0,40}\Z")
_DECORATED = re.compile(
    r"[^\n]{0,200}\n(?:[ \t]{0,40}@[A-Za-z_.]{1,80}[^\n]{0,200}\n){0,4}[ \t]{0,40}"
    r"(?:def|class|async|public|private|protected|static|export|function|abstract|final|override|fun|val|var"
    r"|void|interface|enum|const|readonly|constructor|[A-Za-z_]{2,30}\([^\n]{0,200}\{)[^A-Za-z0-9_]"
)
"""A definition on the next lines: what stands before it is a decorator or an annotation."""
_CODE_TAGS = frozenset(
    any_of(
        "param params return returns throws see since deprecated override property media import",
        "charset keyframes supports author version link code interface implements inheritdoc test",
        "before after autowired component service staticmethod classmethod abstractmethod dataclass",
        "cached_property font-face page layer container include mixin extend type typedef private",
        "context id graph value language "
        "public protected internal example todo nullable notnull suppresswarnings entity table column",
    ).split("|")
)


def _is_spaced(text: str, match: re.Match[str]) -> bool:
    """ "see you @ amazon.com" names a shop."""
    return match["l"].lower() not in _NOT_LOCAL


def _is_said_at(text: str, match: re.Match[str]) -> bool:
    """ "look at example.com" is English: a host that is no mail service wants a name that is no word."""
    local = match["l"]
    is_name = re.search(r"[0-9_.]", local) is not None and re.search(r"[A-Za-z]", local) is not None
    return local.lower() not in _NOT_LOCAL and (match["o"] is None or is_name)


def _is_handle(text: str, match: re.Match[str]) -> bool:
    """No tag or decorator of a program, no file ("curl -d @body.json")."""
    name = match[0][1:].lower()
    return (
        name not in _CODE_TAGS
        and name.rpartition(".")[2] not in _FILES.split("|")
        and not (
            _LINE_BEGINS.search(text, max(0, match.start() - 40), match.start())
            and _DECORATED.match(text, match.end())
        )
    )


_SERVICES = (
    r"(?:user[ _-]?name|user ?id|screen ?name|twitter|instagram|insta|telegram|snapchat|skype|discord|tiktok"
    r"|login|nick(?:name)?)"
    r"(?: (?:handle|account|name|id))?"
)
_NAMED = re.compile(
    rf"(?i)(?<![A-Za-z0-9\xff]){_SERVICES}(?: is |\s?[:=]\s?)[\"'@]{{0,2}}"
    r"(?P<v>[A-Za-z0-9_](?:[A-Za-z0-9_.-]{1,30}[A-Za-z0-9_]))(?![A-Za-z0-9_@(\[-]|\.[A-Za-z0-9])"
)
_PROFILE = re.compile(
    r"(?i)(?<![a-z0-9-])(?:(?:twitter|x|instagram|facebook|tiktok|github|gitlab|medium|pinterest|twitch"
    r"|threads|soundcloud"
    r"|patreon|vk|snapchat)\.(?:com|net|tv)/(?:add/|@)?|linkedin\.com/in/|t\.me/|reddit\.com/(?:u|user)/"
    r"|youtube\.com/@"
    r"|bsky\.app/profile/|wa\.me/)(?P<v>[a-z0-9_](?:[a-z0-9_.-]{0,38}[a-z0-9_])?)(?![a-z0-9_@-])"
)
_NOT_PROFILES = frozenset(
    any_of(
        "share sharer intent home login signup search explore hashtag about help settings watch events "
        "groups pages p",
        "reel reels stories tv i status policies privacy terms legal jobs features pricing marketplace "
        "topics orgs",
        "sponsors tr dialog plugins joinchat addstickers s video videos",
    ).split("|")
)


def _is_profile(text: str, match: re.Match[str]) -> bool:
    """The first part of a path is a name unless the service uses it itself."""
    return match["v"].lower() not in _NOT_PROFILES


_COMMON = frozenset(
    any_of(
        "not the this that null none true false admin root user an my your now here required invalid",
        "string name self str int",
    ).split("|")
)


def _is_named(text: str, match: re.Match[str]) -> bool:
    """After "is" any word could follow, so there it must not be letters only."""
    value = match["v"].lower()
    return value not in _COMMON and not (match[0].lower().endswith(" is " + value) and value.isalpha())


RULES = (
    Rule(
        "email",
        "email",
        rf"[{_WORD}_+'~!$*^\"-](?:@|%40)[{_WORD}\[]",
        72,
        _EMAIL,
        _is_address,
        strength=1,
        least=3,
        head=re.compile(_EMAIL_HEAD),
    ),
    Rule(
        "email_bracketed",
        "email",
        rf"(?i){_OPEN}(?:at|@|arroba|chez){_CLOSE}",
        170,
        _BRACKETED,
        strength=1,
        least=4,
        head=re.compile(_BRACKETED_HEAD),
    ),
    Rule(
        "email_spelled",
        "email",
        rf"(?i)\sat\s[{_WORD}-]{{1,63}}\s?[\[({{< ]\s?(?:dot|punkt|point|punto|\.)",
        250,
        _SPELLED,
        _is_spelled,
        strength=2,
        least=6,
        reach=330,
    ),
    Rule(
        "email_spaced",
        "email",
        rf"(?i)[{_WORD}_](?:\s@\s[{_WORD}-]{{1,63}}\s?\.|@[{_WORD}-]{{1,63}}\s\."
        rf"|_at_[{_WORD}-]{{1,63}}_dot_)",
        136,
        _SPACED,
        _is_spaced,
        strength=2,
        least=5,
        reach=330,
    ),
    Rule(
        "email_said",
        "email",
        rf"(?i)[{_WORD}_]\sat\s[{_WORD}-]{{1,63}}\.[{_WORD}]",
        136,
        _SAID_AT,
        _is_said_at,
        strength=2,
        least=7,
        reach=260,
    ),
    Rule(
        "handle_profile",
        "handle",
        r"(?i)(?:twitter|x|instagram|facebook|tiktok|github|gitlab|medium|pinterest|twitch|threads"
        r"|soundcloud|patreon|vk"
        r"|snapchat)\.(?:com|net|tv)/|linkedin\.com/in/|t\.me/|reddit\.com/u|youtube\.com/@"
        r"|bsky\.app/profile/|wa\.me/",
        22,
        _PROFILE,
        _is_profile,
        strength=2,
        least=5,
        reach=48,
        group="v",
    ),
    Rule(
        "handle_at",
        "handle",
        r"(?:^|[^A-Za-z0-9@\xff])@[A-Za-z0-9_]",
        2,
        _HANDLE,
        _is_handle,
        least=2,
    ),
    Rule(
        "handle_named",
        "handle",
        rf"(?i){_SERVICES}(?: is |\s?[:=])",
        34,
        _NAMED,
        _is_named,
        strength=2,
        least=4,
        group="v",
    ),
)
