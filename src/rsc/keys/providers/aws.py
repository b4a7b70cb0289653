"""Keys in AWS KMS. Credentials come from where boto3 finds them (a role, a profile); RSC stores none.

The context is the encryption context of every call, so it shows in CloudTrail and a wrapped key moved to
another data set does not open.

Not covered: erasure is not immediate. AWS deletes a key 7 days after `destroy` at the earliest; until then
it refuses to decrypt (state PendingDeletion) but an administrator can cancel. Simulated services do not
even refuse, so no test here shows erasure. Copies of a data key inside boto3.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from rsc.errors import ConfigError, KeyUnavailable
from rsc.extras import install_command
from rsc.keys.envelope import KekInfo
from rsc.keys.providers.register import Register
from rsc.keys.providers.wiping import wipe
from rsc.keys.secret import SecretKey

_WAIT_DAYS = 7  # the shortest that KMS accepts


class AwsKmsProvider:
    name = "aws"
    is_immediate = False

    def __init__(self, *, region: str, register: Register, profile: str | None = None) -> None:
        self._region = region
        self._profile = profile
        self._register = register
        self._client: Any = None

    def create(self, kek_id: str, *, period: str, expires: datetime | None = None) -> KekInfo:
        found = self._register.find(kek_id)
        if found is not None:
            self._register.require(kek_id)
            return found[0]
        answer = self._ask(
            "create_key",
            kek_id,
            Description=f"RSC key-encryption key {kek_id}",
            Tags=[{"TagKey": "rsc-kek-id", "TagValue": kek_id}],
        )
        key_id = answer["KeyMetadata"]["KeyId"]
        return self._register.add(kek_id, period=period, expires=expires, service_name=key_id)

    def wrap(self, kek_id: str, key: SecretKey, *, context: bytes) -> bytes:
        key_id = self._register.require(kek_id)
        plain = bytes(key.view)
        try:
            answer = self._ask(
                "encrypt", kek_id, KeyId=key_id, Plaintext=plain, EncryptionContext=_context(context)
            )
        finally:
            wipe(plain)
        return bytes(answer["CiphertextBlob"])

    def unwrap(self, kek_id: str, wrapped: bytes, *, context: bytes) -> SecretKey:
        key_id = self._register.require(kek_id)
        answer = self._ask(
            "decrypt", kek_id, KeyId=key_id, CiphertextBlob=wrapped, EncryptionContext=_context(context)
        )
        plain: bytes = answer["Plaintext"]
        try:
            return SecretKey.from_buffer(bytearray(plain))
        finally:
            wipe(plain)

    def destroy(self, kek_id: str) -> KekInfo:
        """Refuse it here, schedule its deletion there, in 7 days (from now on KMS refuses it), and only then
        put up the tombstone. Raises KeyUnavailable where KMS does not know it."""
        found = self._register.find(kek_id)
        if found is not None:
            state = self._state(found[1], kek_id)
            self._register.begin_end(kek_id, is_there=True, service="KMS")
            if state != "PendingDeletion":
                self._ask("schedule_key_deletion", kek_id, KeyId=found[1], PendingWindowInDays=_WAIT_DAYS)
        return self._register.bury(kek_id)

    def list(self) -> list[KekInfo]:
        return self._register.list()

    def _state(self, key_id: str, kek_id: str) -> str:
        return str(self._ask("describe_key", kek_id, KeyId=key_id)["KeyMetadata"]["KeyState"])

    def _ask(self, operation: str, kek_id: str, **arguments: Any) -> dict[str, Any]:
        """Raises KeyUnavailable with the service's own code when it refuses or is not there."""
        try:
            import boto3
            from botocore.exceptions import BotoCoreError, ClientError
        except ImportError:
            raise ConfigError("boto3 is not installed", hint=install_command("aws")) from None
        try:
            if self._client is None:
                session = boto3.session.Session(profile_name=self._profile, region_name=self._region)
                self._client = session.client("kms")
            answer: dict[str, Any] = getattr(self._client, operation)(**arguments)
        except ClientError as error:
            told = error.response["Error"]["Code"]
            raise KeyUnavailable(f"AWS KMS refused {operation} on {kek_id}: {told}", kek_id=kek_id) from None
        except BotoCoreError as error:
            raise KeyUnavailable(f"AWS KMS does not answer: {type(error).__name__}", kek_id=kek_id) from None
        return answer


def _context(context: bytes) -> dict[str, str]:
    return {"rsc": context.hex()}
