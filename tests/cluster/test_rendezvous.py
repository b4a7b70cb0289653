"""Who knows the secret of a job joins it; who does not can neither join nor stop those who do."""

from __future__ import annotations

import os
import secrets
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsc.cluster.rendezvous.channel import SECRET_BYTES, Channel, NotOfThisJob, read_secret, write_secret
from rsc.cluster.rendezvous.hub import Event, Heard, Hub, Joined, Left
from rsc.cluster.rendezvous.interfaces import address_of, address_towards, interface_of
from rsc.cluster.rendezvous.key_value import KeyConflict, KeyValues
from rsc.cluster.rendezvous.member import Member
from rsc.cluster.rendezvous.message import MOST_BYTES, Frames, Message, framed
from rsc.errors import ConfigError, DataError, ResourceError

SECRET = bytes(range(SECRET_BYTES))


def has_ipv6() -> bool:
    try:
        Hub(SECRET, host="::1").close()
    except ResourceError:
        return False
    return True


HOSTS = ["127.0.0.1", *(["::1"] if has_ipv6() else [])]


@pytest.fixture(params=HOSTS)
def hub(request: pytest.FixtureRequest) -> Iterator[Hub]:
    hub = Hub(SECRET, host=request.param)
    yield hub
    hub.close()


def hear(hub: Hub, until: Callable[[list[Event]], bool]) -> list[Event]:
    """What the hub hears, up to where that is enough."""
    heard: list[Event] = []
    while not until(heard):
        heard += hub.wait(timeout_s=0.05)
    return heard


class Joining:
    """A member that joins while the test serves the hub."""

    def __init__(self, hub: Hub) -> None:
        self._members: list[Member] = []
        self._thread = threading.Thread(target=self._join, args=[hub.address])
        self._thread.start()

    def _join(self, address: tuple[str, int]) -> None:
        self._members.append(Member.join(SECRET, address=address, patience_s=60))

    def served_by(self, hub: Hub) -> Member:
        while self._thread.is_alive():
            hub.wait(timeout_s=0.05)
        return self._members[0]


def connect(hub: Hub) -> socket.socket:
    sock = socket.create_connection(hub.address)
    sock.settimeout(60)
    return sock


def test_messages_go_both_ways_whatever_their_size(hub: Hub) -> None:
    member = Joining(hub).served_by(hub)
    payloads = [b"", b"x", os.urandom(300_000)]
    for payload in payloads:
        member.send(Message("rows", {"step": 3}, payload))
        (heard,) = (
            e for e in hear(hub, lambda h: any(isinstance(e, Heard) for e in h)) if isinstance(e, Heard)
        )
        assert heard.message == Message("rows", {"step": 3}, payload)
        hub.send(heard.peer, heard.message)
        answers: list[Message] = []
        while not answers:
            hub.wait(timeout_s=0.0)
            answers = member.hear()
        assert answers == [heard.message]
    member.close()
    assert isinstance(hear(hub, bool)[0], Left)


def wrong_secret(sock: socket.socket) -> None:
    channel = Channel(secrets.token_bytes(SECRET_BYTES), is_server=False)
    sock.sendall(channel.outgoing + secrets.token_bytes(32))


def random_bytes(sock: socket.socket) -> None:
    sock.sendall(secrets.token_bytes(5000))


def half_a_nonce(sock: socket.socket) -> None:
    sock.sendall(b"x" * 16)


def a_huge_length(sock: socket.socket) -> None:
    sock.sendall(struct.pack(">I", 0xFFFFFFFF) * 16)


def the_servers_own_proof(sock: socket.socket) -> None:
    """What the server sends back to it."""
    sock.sendall(secrets.token_bytes(32))


def closes_at_once(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@pytest.mark.parametrize(
    "attack", [wrong_secret, random_bytes, half_a_nonce, a_huge_length, the_servers_own_proof, closes_at_once]
)
def test_a_stranger_does_not_join_and_members_do_meanwhile(hub: Hub, attack: Callable[..., None]) -> None:
    stranger = connect(hub)
    attack(stranger)
    member = Joining(hub).served_by(hub)
    member.send(Message("here"))
    heard = hear(hub, lambda h: any(isinstance(e, Heard) for e in h))
    assert not [event for event in heard if isinstance(event, Left)]
    assert len({event.peer for event in heard if isinstance(event, Heard | Joined)}) == 1
    stranger.close()
    member.close()


def test_a_proof_that_the_server_gave_is_no_proof_of_a_client() -> None:
    """A peer that reflects what it is sent, on one connection or two, learns nothing that opens one."""
    server = Channel(SECRET, is_server=True)
    nonce = secrets.token_bytes(32)
    list(server.feed(nonce))
    answer = bytes(server.outgoing)
    other = Channel(SECRET, is_server=True)
    list(other.feed(answer[:32]))
    with pytest.raises(NotOfThisJob):
        list(server.feed(answer[32:]))
    with pytest.raises(NotOfThisJob):
        list(other.feed(bytes(other.outgoing)[32:]))


def pair() -> tuple[Channel, Channel, bytes]:
    """Two open channels, and everything that the client sent so far."""
    client, server = Channel(SECRET, is_server=False), Channel(SECRET, is_server=True)
    sent = bytearray()
    while not (client.is_open and server.is_open):
        sent += client.outgoing
        out, client.outgoing[:] = bytes(client.outgoing), b""
        assert not list(server.feed(out))
        back, server.outgoing[:] = bytes(server.outgoing), b""
        assert not list(client.feed(back))
    return client, server, bytes(sent)


def test_a_recorded_connection_opens_no_other() -> None:
    client, _, sent = pair()
    client.send(Message("set", {"key": "a"}))
    fresh = Channel(SECRET, is_server=True)
    with pytest.raises(NotOfThisJob):
        list(fresh.feed(sent + bytes(client.outgoing)))


@pytest.mark.parametrize("change", ["flip", "repeat", "swap", "drop"])
def test_a_frame_that_was_tampered_with_ends_the_connection(change: str) -> None:
    client, server, _ = pair()
    frames = []
    for number in range(3):
        client.send(Message("set", {"key": str(number)}))
        frames.append(bytes(client.outgoing))
        client.outgoing.clear()
    changed = {
        "flip": [frames[0][:-1] + bytes([frames[0][-1] ^ 1])],
        "repeat": [frames[0], frames[0]],
        "swap": [frames[1], frames[0]],
        "drop": [frames[0], frames[2]],
    }[change]
    with pytest.raises(NotOfThisJob):
        list(server.feed(b"".join(changed)))


def test_silent_strangers_have_a_bound_and_a_member_still_joins(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rsc.cluster.rendezvous.hub._MOST_STRANGERS", 16)
    silent = []
    for _ in range(40):
        silent.append(connect(hub))
        hub.wait(timeout_s=0.0)
    assert len(hub._strangers) <= 16
    member = Joining(hub).served_by(hub)
    member.close()
    for sock in silent:
        sock.close()


def test_a_stranger_that_says_nothing_is_sent_away() -> None:
    now_s = 0.0
    hub = Hub(SECRET, host="127.0.0.1", now_s=lambda: now_s)
    silent = connect(hub)
    while not hub._strangers:
        hub.wait(timeout_s=0.05)
    now_s = 6.0
    hub.wait(timeout_s=0.0)
    assert silent.recv(1) == b""
    hub.close()


def test_a_controller_that_does_not_know_the_secret_is_not_joined() -> None:
    hub = Hub(secrets.token_bytes(SECRET_BYTES), host="127.0.0.1")
    failures: list[Exception] = []

    def join() -> None:
        try:
            Member.join(SECRET, address=hub.address, patience_s=60)
        except DataError as error:
            failures.append(error)

    thread = threading.Thread(target=join)
    thread.start()
    while thread.is_alive():
        assert not hub.wait(timeout_s=0.05)
    assert isinstance(failures[0], NotOfThisJob)
    hub.close()


def test_nobody_at_the_address_is_told_with_the_address() -> None:
    hub = Hub(SECRET, host="127.0.0.1")
    address = hub.address
    hub.close()
    with pytest.raises(ResourceError, match=f"port {address[1]}"):
        Member.join(SECRET, address=address, patience_s=0.0)


@settings(max_examples=100)
@given(st.lists(st.binary(max_size=300), max_size=6), st.integers(1, 50))
def test_frames_come_whole_however_they_arrive(bodies: list[bytes], piece: int) -> None:
    wire = b"".join(map(framed, bodies))
    frames, found = Frames(), []
    for start in range(0, len(wire), piece):
        found += frames.feed(wire[start : start + piece])
    assert found == bodies


def test_a_length_above_the_bound_reserves_nothing() -> None:
    with pytest.raises(DataError, match="above"):
        Frames().feed(struct.pack(">I", MOST_BYTES + 1))


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_bytes_that_are_no_message_are_refused(body: bytes) -> None:
    try:
        message = Message.decode(body)
    except DataError:
        return
    assert isinstance(message.kind, str)


def test_a_key_has_one_value_and_answers_those_who_came_before_it() -> None:
    keys, heard = KeyValues(), []
    keys.ask("a", heard.append)
    keys.put("a", b"1")
    keys.ask("a", heard.append)
    keys.put("a", b"1")
    assert heard == [b"1", b"1"]
    with pytest.raises(KeyConflict):
        keys.put("a", b"2")
    with pytest.raises(KeyConflict):
        keys.put("b", bytes(1 << 17))


def test_the_secret_is_read_and_nothing_after_it() -> None:
    ours, theirs = os.pipe()
    os.write(theirs, write_secret(SECRET) + b"later")
    assert read_secret(ours) == SECRET
    assert os.read(ours, 100) == b"later"
    os.write(theirs, b"no secret\n")
    with pytest.raises(DataError):
        read_secret(ours)
    os.close(theirs)
    os.close(ours)


def test_interfaces_have_names_and_addresses() -> None:
    assert (interface_of("127.0.0.1"), address_of("lo"), address_of("127.0.0.1")) == (
        "lo",
        "127.0.0.1",
        "127.0.0.1",
    )
    assert address_towards("127.0.0.1") == "127.0.0.1"
    with pytest.raises(ConfigError, match="rsc-none"):
        address_of("rsc-none")
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1"):
        interface_of("192.0.2.1")
