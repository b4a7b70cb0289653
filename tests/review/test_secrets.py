"""Secrets where people leave them: commands, headers, files of settings, URLs, keys in armour."""

from __future__ import annotations

import base64
import random
from functools import cache

import pytest

from rsc.review.scanner.scanner import Scanner

_WORD = "Sommer2024!"
_BASIC = base64.b64encode(b"zainab:Sommer2024!").decode()
_HEX = random.Random(3).randbytes(32).hex()
_SSH2 = (
    '---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\nComment: "x"\n%s\n---- END SSH2 ENCRYPTED PRIVATE KEY ----'
)
_PGP = "-----BEGIN PGP PRIVATE KEY BLOCK-----\nVersion: 1\n\n%s\n=aB3d\n-----END PGP PRIVATE KEY BLOCK-----"
_BODY = "\n".join(base64.b64encode(random.Random(4).randbytes(48)).decode() for _ in range(6))
_PEM = f"-----BEGIN RSA PRIVATE KEY-----\n{_BODY}\n-----END RSA PRIVATE KEY-----"
_UUID = "f2cc62de-14d3-4fc1-9115-f107bcc54b68"
_RANDOM = base64.b64encode(random.Random(5).randbytes(30)).decode()
_JWE = (
    "eyJhbGciOiJkaXIiLCJlbmMiOiJBMTI4R0NNIn0..48V1_ALb6US04U3b.5eym8TW_c8SuK0ltJ3rpYI.XFBoMYUZodetZdvTiFvSkQ"
)


@cache
def scanner() -> Scanner:
    return Scanner()


def left_of(text: str, value: str) -> str:
    """The letters and digits of a value that no finding covers."""
    covered = {place for f in scanner().scan(text) if f.type in ("secret", "url_credentials")
               for place in range(f.start, f.end)}  # fmt: skip
    start = text.index(value)
    return "".join(c for place, c in enumerate(value, start) if place not in covered and c.isalnum())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (f"curl -u zainab:{_WORD} https://x.example", _WORD),
        (f"curl -s --user 'zainab:{_WORD}' https://x.example", _WORD),
        (f"curl -X POST -uzainab:{_WORD} https://x.example", _WORD),
        (f"sshpass -p {_WORD} ssh host", _WORD),
        (f"sshpass -p '{_WORD} x' ssh host", _WORD),
        (f"mysql -u root -p{_WORD} shop", _WORD),
        (f"mysqldump --host=db -uroot -p'{_WORD}' shop", _WORD),
        (f"redis-cli -h cache -a {_WORD} ping", _WORD),
        (f"docker login -u ana -p {_WORD} registry.example", _WORD),
        (f"PGPASSWORD={_WORD} psql -h db", _WORD),
        (f"psql 'host=db password={_WORD}'", _WORD),
        (f"ldapsearch -x -D cn=admin -w {_WORD} -b dc=example", _WORD),
        (f"openssl rsa -in key.pem -passin pass:{_WORD}", _WORD),
        (f"smbclient //host/share -U ana%{_WORD}", _WORD),
        (f"deploy --db-password {_WORD} --verbose", _WORD),
        (f"deploy --token='{_WORD}'", _WORD),
        (f"machine x.example login ana password {_WORD}", _WORD),
        (f"machine x.example\n  login ana\n  password {_WORD}\n", _WORD),
        (f"db.example:5432:shop:ana:{_WORD}", _WORD),
        (f"Authorization: Basic {_BASIC}", _BASIC),
        (f'{{"Authorization": "Basic {_BASIC}"}}', _BASIC),
        (f"headers['Authorization'] = 'Token {_HEX}'", _HEX),
        (f'-H "authorization: ApiKey {_HEX}"', _HEX),
        (f'{{"auths": {{"registry.example": {{"auth": "{_BASIC}"}}}}}}', _BASIC),
        (f'log {{\\"password\\":\\"{_WORD}\\"}} end', _WORD),
        (f'log {{\\\\\\"password\\\\\\":\\\\\\"{_WORD}\\\\\\"}} end', _WORD),
        (f"password: '{_WORD}'\n", _WORD),
        (f"  password : {_WORD}\n", _WORD),
        (f"DB_PASSWORD = '{_WORD}'", _WORD),
        (f"db_password_super: {_WORD}", _WORD),
        (f"setPassword(\"{_WORD}\");", _WORD),
        (f"if (secret === '{_WORD}') {{", _WORD),
        (f"if ('{_WORD}' == my_password) {{", _WORD),
        (f'password := "{_WORD}"', _WORD),
        ('password = "it\'s\\"quoted\\"7"', 'it\'s\\"quoted\\"7'),
        ("apikey = m{{h}o)p${e]nob(ody[x>-_$#one}}", "m{{h}o)p${e]nob(ody[x>-_$#one}}"),
        (f"<password>{_WORD}</password>", _WORD),
        ("Password=48151623;Server=db", "48151623"),
        (f"api_key={_HEX}", _HEX),
        (f'ENCRYPTION_KEY: "{_RANDOM}"', _RANDOM),
        (f"BLOB={_RANDOM}", _RANDOM),
        (f"https://x.example/b?X-Amz-Date=20240101T000000Z&X-Amz-Signature={_HEX}", _HEX),
        ("https://a.blob.example/c?sv=2022-11-02&se=2024-01-01&sig=abc%2Bdef%2FghiJKL0123456789mnopqrstuv%3D",
         "abc%2Bdef%2FghiJKL0123456789mnopqrstuv%3D"),
        (f"https://x.example/login?access_token={_HEX}", _HEX),
        ("postgres://ana:p@ss/w#rd?@db.example:5432/shop", "ana:p@ss/w#rd?"),
        ("amqp://ana:100%sure!@mq.example", "ana:100%sure!"),
        ("mongodb+srv://ana:pa55:word@cluster.example/?w=1", "ana:pa55:word"),
        ("redis://:s3cr3t@cache.example:6379/0", ":s3cr3t"),
        (_PEM, _PEM),
        (_PEM.replace("\n", "\\n"), _PEM.replace("\n", "\\n")),
        ("key: |\n" + _PEM.replace("\n", "\n    ").join(("    ", "\n")), _PEM.split("\n")[3]),
        ("\n".join(f'"{line}\\n" +' for line in _PEM.split("\n")), _PEM.split("\n")[4]),
        (_PEM[:200], _PEM[:200]),
        ("data: " + base64.b64encode(_PEM.encode()).decode(), base64.b64encode(_PEM.encode()).decode()),
        (f"PuTTY-User-Key-File-3: ssh-rsa\nPrivate-Lines: 6\n{_BODY}\nPrivate-MAC: {_HEX}", _BODY),
        (_SSH2 % _BODY, _BODY),
        (_PGP % _BODY, _BODY),
        (f"sdk-{_UUID}", _UUID),
        (f"sqp_{_HEX[:40]}", _HEX[:40]),
        (f"sk_{_HEX[:48]}", _HEX[:48]),
        (f"key_{_HEX}", _HEX),
        (f"SSWS 00{_HEX[:40]}", _HEX[:40]),
        (f"2/1200000000000001/1200000000000002:{_HEX[:32]}", _HEX[:32]),
        ("jwt " + base64.b64encode(_JWE.encode()).decode(), base64.b64encode(_JWE.encode()).decode()),
        (f"ngrok config add-authtoken {_HEX[:24]}", _HEX[:24]),
        (f'ConvertTo-SecureString "{_WORD}" -AsPlainText', _WORD),
        (f'<add key="ClearTextPassword" value="{_WORD}" />', _WORD),
        (f"CREATE USER ana IDENTIFIED BY '{_WORD}';", _WORD),
        ('psk="hunter2hunter2"', "hunter2hunter2"),
        (f"net use z: //srv/share /user:dom/ana {_WORD}", _WORD),
        (f"psexec //srv -u ana -p {_WORD} cmd", _WORD),
        (f"Set-Cookie: sessionid={_HEX[:32]}; Path=/", _HEX[:32]),
        (f"ana:$6${_HEX[:16]}${_HEX}aB/.:19000:0", f"$6${_HEX[:16]}${_HEX}aB/."),
        (f"hash $2b$12${_HEX[:53]} end", f"$2b$12${_HEX[:53]}"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0 was cut", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0"),
        (f"jwe {_JWE}", _JWE),
    ],
)  # fmt: skip
def test_a_secret_is_found_whole(text, value):
    assert left_of(text, value) == ""


@pytest.mark.parametrize(
    "text",
    [
        "curl -u $USER:$PASS https://x.example", "mysql -u root -p shop", "password: ${DB_PASSWORD}",
        "--password=$PASS", "usage: tool --password PASSWORD", "basic requirements", "Basic authentication",
        "password = os.environ['X']", "token_type: bearer", "tokenizer = gpt2", "max_tokens=4096",
        "def login(password: str, token: str = None):", "http://localhost:8080/x?mail=ana",
        "see https://x.example:443/a#b", "authorization: none", "the key is on the table, secret garden",
        "primary_key = customer_order_line_number", "-----BEGIN PUBLIC KEY-----", "sha256: " + _HEX,
        "password: optional", f"request {_UUID}", "api-docs sdk-core sk_test_name key_columns_of_the_table",
        "the psk is agreed", "identified by the owner", "costs $2 or $5 and $10", "a cookie: sweet",
        "net use it", "task_4f3a2b1c", "fw_update_2024", "enable secret sharing",
        "Set-Cookie: theme=dark; lang=en",
        "image: registry.example/team/app:2024.01.15-abcdef123456",
    ],
)  # fmt: skip
def test_what_only_speaks_of_secrets_is_left_alone(text):
    assert [f for f in scanner().scan(text) if f.type in ("secret", "url_credentials")] == []
