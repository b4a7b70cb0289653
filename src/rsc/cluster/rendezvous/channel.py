"""Two processes that know the secret of a job prove it to each other and seal what they send.

    client -> server   nonce
    server -> client   nonce, HMAC(secret, "server", both nonces)
    client -> server   HMAC(secret, "client", both nonces)
    then               frames of AES-256-GCM: a key per direction (HKDF of the secret, salted with both
                       nonces), the nonce counts the frames

The secret never crosses the wire. What was recorded of one connection opens no other, for both nonces are
fresh; a frame that is changed, dropped, repeated or moved ends the connection.

Not covered: who holds the secret is believed to be of the job; a recording can be opened by whoever learns
the secret later, so a job draws a new one at each start.
"""

from __future__ import annotations

import hmac
import os
import secrets
import struct
from collections.abc import Iterator

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from rsc.cluster.rendezvous.message import MOST_BYTES, Frames, Message, framed
from rsc.errors import DataError

SECRET_BYTES = 32
_NONCE_BYTES, _PROOF_BYTES, _TAG_BYTES = 32, 32, 16
_COUNTER = struct.Struct(">4xQ")


def write_secret(secret: bytes) -> bytes:
    """As a node's agent reads it from its stdin."""
    return secret.hex().encode() + b"\n"


def read_secret(file: int) -> bytes:
    """Raises DataError where there is none."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(file, 1)):  # not a byte beyond it
        line += byte
        if len(line) > 2 * SECRET_BYTES + 1:
            break
    try:
        secret = bytes.fromhex(line.decode())
    except ValueError:
        secret = b""
    if len(secret) != SECRET_BYTES:
        raise DataError("no secret of the job came on stdin")
    return secret


class NotOfThisJob(DataError):
    """The other side does not know the secret of the job, or does not speak as its processes do."""


class Channel:
    """One side of a connection: bytes that arrived go in, messages and bytes to send come out. No sockets."""

    def __init__(self, secret: bytes, *, is_server: bool) -> None:
        if len(secret) != SECRET_BYTES:
            raise ValueError(f"the secret of a job has {SECRET_BYTES} bytes, not {len(secret)}")
        self._secret, self._is_server = secret, is_server
        self._mine, self._theirs = secrets.token_bytes(_NONCE_BYTES), b""
        self._early = bytearray()
        self._frames = Frames(most_bytes=MOST_BYTES + _TAG_BYTES)
        self._sending: _Sealed | None = None
        self._receiving: _Sealed | None = None
        self.outgoing = bytearray(b"" if is_server else self._mine)
        """Bytes for the wire; whoever sends them removes them."""

    @property
    def is_open(self) -> bool:
        """Whether the other side has proved that it knows the secret."""
        return self._receiving is not None

    def send(self, message: Message) -> None:
        assert self._sending is not None, "the other side is not known yet"
        body = message.encode()
        if len(body) > MOST_BYTES:
            raise ValueError(f"a message of {len(body)} bytes, above {MOST_BYTES}")
        self.outgoing += framed(self._sending.seal(body))

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that are whole now. Raises NotOfThisJob, and DataError for what is none."""
        if not self.is_open:
            self._early += data
            if not self._shake_hands():
                return
            data = bytes(self._early)
            self._early.clear()
        assert self._receiving is not None
        for frame in self._frames.feed(data):
            yield Message.decode(self._receiving.open(frame))

    def _shake_hands(self) -> bool:
        """Go on with what has arrived; whether the channel is open now."""
        if not self._theirs:
            if len(self._early) < _NONCE_BYTES:
                return False
            self._theirs = self._take(_NONCE_BYTES)
            if self._is_server:
                self.outgoing += self._mine + self._proof("server")
        if len(self._early) < _PROOF_BYTES:
            return False
        peer = "client" if self._is_server else "server"
        if not hmac.compare_digest(self._take(_PROOF_BYTES), self._proof(peer)):
            raise NotOfThisJob("the other side does not know the secret of this job")
        if not self._is_server:
            self.outgoing += self._proof("client")
        ours, theirs = ("server", "client") if self._is_server else ("client", "server")
        self._sending, self._receiving = _Sealed(self._key(ours)), _Sealed(self._key(theirs))
        return True

    def _take(self, size: int) -> bytes:
        taken = bytes(self._early[:size])
        del self._early[:size]
        return taken

    def _nonces(self) -> bytes:
        """The client's first."""
        return self._theirs + self._mine if self._is_server else self._mine + self._theirs

    def _proof(self, side: str) -> bytes:
        return hmac.digest(self._secret, side.encode() + self._nonces(), "sha256")

    def _key(self, side: str) -> bytes:
        derive = HKDF(hashes.SHA256(), length=32, salt=self._nonces(), info=f"rsc job {side}".encode())
        return derive.derive(self._secret)


class _Sealed:
    """Frames of one direction, in their order."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self._count = 0

    def seal(self, body: bytes) -> bytes:
        return self._cipher.encrypt(self._next(), body, None)

    def open(self, frame: bytes) -> bytes:
        try:
            return self._cipher.decrypt(self._next(), frame, None)
        except InvalidTag:
            raise NotOfThisJob("a frame that was changed, repeated or left out") from None

    def _next(self) -> bytes:
        nonce = _COUNTER.pack(self._count)
        self._count += 1
        return nonce
