"""A small server that speaks the transit engine's HTTP as its API documentation shows it, on loopback.

It checks what the real one checks: the token, the key's existence, the ciphertext's tag and associated data,
and that deletion was allowed first.
"""

from __future__ import annotations

import base64
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

TOKEN = "s.test-token"


class Transit(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.keys: dict[str, dict] = {}
        self.bodies: list[bytes] = []
        self.forgets_to_delete = False
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Transit

    def log_message(self, *arguments) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, answer = self._route(json.loads(body or b"{}"))
        data = json.dumps(answer).encode() if answer is not None else b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _route(self, body: dict) -> tuple[int, dict | None]:
        keys = self.server.keys
        if self.headers.get("X-Vault-Token") != TOKEN:
            return 403, {"errors": ["permission denied"]}
        verb, _, rest = self.path.removeprefix("/v1/transit/").partition("/")
        name, _, last = rest.partition("/")
        if verb == "keys" and self.command == "POST" and not last:
            keys.setdefault(name, {"secret": AESGCM(os.urandom(32)), "deletable": False})
            return 200, {"data": {"name": name, "type": "aes256-gcm96"}}
        if name not in keys:
            return (
                (404, {"errors": []})
                if self.command == "GET"
                else (400, {"errors": ["encryption key not found"]})
            )
        if verb == "keys" and self.command == "GET":
            return 200, {"data": {"name": name}}
        if last == "config":
            keys[name]["deletable"] = body["deletion_allowed"]
            return 200, {"data": {}}
        if self.command == "DELETE":
            if not keys[name]["deletable"]:
                return 400, {"errors": ["deletion is not allowed for this key"]}
            if not self.server.forgets_to_delete:
                del keys[name]
            return 204, None
        return self._crypt(verb, keys[name]["secret"], body)

    def _crypt(self, verb: str, secret: AESGCM, body: dict) -> tuple[int, dict]:
        associated = base64.b64decode(body["associated_data"])
        if verb == "encrypt":
            nonce = os.urandom(12)
            sealed = nonce + secret.encrypt(nonce, base64.b64decode(body["plaintext"]), associated)
            return 200, {
                "data": {"ciphertext": "vault:v1:" + base64.b64encode(sealed).decode(), "key_version": 1}
            }
        try:
            sealed = base64.b64decode(body["ciphertext"].removeprefix("vault:v1:"), validate=True)
            plain = secret.decrypt(sealed[:12], sealed[12:], associated)
        except (InvalidTag, ValueError):
            return 400, {"errors": ["cipher: message authentication failed"]}
        return 200, {"data": {"plaintext": base64.b64encode(plain).decode()}}
