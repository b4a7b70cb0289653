"""Keys in the transit engine of HashiCorp Vault or OpenBao, over HTTP with the standard library.

    POST   /v1/<mount>/keys/<name>            {"type": "aes256-gcm96"}
    POST   /v1/<mount>/encrypt/<name>         {"plaintext": base64, "associated_data": base64}
    POST   /v1/<mount>/decrypt/<name>         {"ciphertext": "vault:v1:...", "associated_data": base64}
    POST   /v1/<mount>/keys/<name>/config     {"deletion_allowed": true}
    DELETE /v1/<mount>/keys/<name>

The key-encryption key never leaves the service; an export is not asked for and not allowed.

Not covered: the service's operators and its backups (a restored backup brings a deleted key back); copies
of a data key in the buffers of HTTP and TLS. Plain http:// is refused but for a loopback address.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import json
import re
import ssl
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from rsc.errors import ConfigError, KeyUnavailable
from rsc.keys.envelope import KekInfo, check_kek_id
from rsc.keys.providers.register import Register
from rsc.keys.providers.wiping import wipe
from rsc.keys.secret import SecretKey

_TIMEOUT_S = 10.0
_PLAINTEXT = re.compile(rb'"plaintext"\s*:\s*"([A-Za-z0-9+/=]*)"')
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_NO_CONTENT, _NOT_FOUND = 204, 404


class VaultProvider:
    name = "vault"
    is_immediate = False

    def __init__(
        self,
        *,
        url: str,
        token: bytearray,
        register: Register,
        mount: str = "transit",
        ca_file: str | None = None,
    ) -> None:
        """`token` stays the caller's to wipe. Raises ConfigError for a URL that sends keys in the open."""
        parts = urlsplit(url)
        if parts.scheme not in ("https", "http") or not parts.hostname:
            raise ConfigError(
                f"{url!r} is not the address of a Vault or OpenBao server", hint="https://HOST:8200"
            )
        if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            raise ConfigError(f"{url} is not encrypted: keys would travel in the open", hint="use https://")
        self._parts = parts
        self._token = token
        self._register = register
        self._mount = mount.strip("/")
        self._ca_file = ca_file

    def create(self, kek_id: str, *, period: str, expires: datetime | None = None) -> KekInfo:
        found = self._register.find(kek_id)
        if found is not None:
            self._register.require(kek_id)
            return found[0]
        service_name = _service_name(kek_id)
        self._call("POST", f"keys/{service_name}", {"type": "aes256-gcm96", "exportable": False})
        return self._register.add(kek_id, period=period, expires=expires, service_name=service_name)

    def wrap(self, kek_id: str, key: SecretKey, *, context: bytes) -> bytes:
        """The service's own text, `vault:v1:...`."""
        service_name = self._register.require(kek_id)
        encoded = binascii.b2a_base64(key.view, newline=False)
        body = bytearray(b'{"plaintext":"') + encoded + f'","associated_data":"{_b64(context)}"}}'.encode()
        wipe(encoded)
        try:
            _, answer = self._send("POST", f"encrypt/{service_name}", body, kek_id=kek_id)
        finally:
            body[:] = bytes(len(body))
        return str(json.loads(answer)["data"]["ciphertext"]).encode()

    def unwrap(self, kek_id: str, wrapped: bytes, *, context: bytes) -> SecretKey:
        service_name = self._register.require(kek_id)
        request = {"ciphertext": wrapped.decode("ascii", "replace"), "associated_data": _b64(context)}
        _, answer = self._send("POST", f"decrypt/{service_name}", json.dumps(request).encode(), kek_id=kek_id)
        try:
            match = _PLAINTEXT.search(answer)
            if match is None:
                raise KeyUnavailable(
                    f"the answer of the key service for {kek_id} holds no key", kek_id=kek_id
                )
            with memoryview(answer) as view:
                plain = binascii.a2b_base64(view[match.start(1) : match.end(1)])
        finally:
            answer[:] = bytes(len(answer))
        try:
            return SecretKey.from_buffer(bytearray(plain))
        finally:
            wipe(plain)

    def destroy(self, kek_id: str) -> KekInfo:
        """Refuse it here, delete it in the service, ask, and only then put up the tombstone. Raises
        KeyUnavailable if the key is still there, and at the first call where the service never had it."""
        service_name = _service_name(kek_id)
        exists = self._exists(service_name)
        service = f"the key service, under {self._mount},"
        self._register.begin_end(kek_id, is_there=exists, service=service)
        if exists:
            self._call("POST", f"keys/{service_name}/config", {"deletion_allowed": True})
            self._call("DELETE", f"keys/{service_name}", {})
            if self._exists(service_name):
                raise KeyUnavailable(f"the key service did not delete {kek_id}", kek_id=kek_id)
        return self._register.bury(kek_id)

    def list(self) -> list[KekInfo]:
        return self._register.list()

    def _exists(self, service_name: str) -> bool:
        status, _ = self._send("GET", f"keys/{service_name}", b"", allow=(_NOT_FOUND,))
        return status != _NOT_FOUND

    def _call(self, method: str, path: str, body: dict[str, Any]) -> None:
        self._send(method, path, json.dumps(body).encode())

    def _send(
        self,
        method: str,
        path: str,
        body: bytes | bytearray,
        *,
        kek_id: str = "",
        allow: tuple[int, ...] = (),
    ) -> tuple[int, bytearray]:
        """One request. Raises KeyUnavailable with the service's own words when it refuses or is not there."""
        connection = self._connect()
        headers = {"X-Vault-Token": self._token.decode(), "Content-Type": "application/json"}
        try:
            connection.request(method, f"/v1/{self._mount}/{path}", body=body, headers=headers)
            response = connection.getresponse()
            answer = bytearray(response.length or 0)
            if response.length:
                response.readinto(answer)
            else:
                answer += response.read()
        except OSError as error:
            raise KeyUnavailable(
                f"the key service at {self._parts.hostname} does not answer: {error}",
                hint="nothing is released while it is away",
                kek_id=kek_id,
            ) from None
        finally:
            connection.close()
        if response.status >= 400 and response.status not in allow:
            raise KeyUnavailable(
                f"the key service refused {kek_id or path} ({response.status}): {_errors(answer)}",
                hint="the token's policy must allow it, and the key must exist",
                kek_id=kek_id,
            )
        return response.status, answer

    def _connect(self) -> http.client.HTTPConnection:
        host, port = str(self._parts.hostname), self._parts.port or 8200
        if self._parts.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
        context = ssl.create_default_context(cafile=self._ca_file)
        return http.client.HTTPSConnection(host, port, timeout=_TIMEOUT_S, context=context)


def _service_name(kek_id: str) -> str:
    """Transit names hold no slash: `/` becomes `_s`, `_` becomes `_u`, so that no two ids meet."""
    return check_kek_id(kek_id).replace("_", "_u").replace("/", "_s")


def _errors(answer: bytearray) -> str:
    try:
        return "; ".join(json.loads(answer)["errors"]) or "no reason given"
    except (ValueError, KeyError, TypeError):
        return "no reason given"


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
