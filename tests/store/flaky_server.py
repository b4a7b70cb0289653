"""An S3 or GCS server on the loopback that misbehaves on request: it drops, delays, truncates, refuses, lies.

drop      half of what was promised, then the connection closes
truncate  half of the range, and the answer says so
short     half of the range, and the answer says it is all of it
lie       one bit is wrong

Enough of S3 for what the store does: ranged GET, HEAD, PUT with If-None-Match, multipart uploads, listing
and deletion; no signatures. Google's XML API is the same with headers of its own, of which one decides
races: x-goog-if-generation-match (cloud.google.com/storage/docs/xml-api/reference-headers); the emulators
of GCS on package indexes speak the JSON API only, which the client does not use. `faults` are used up one
by one by GETs of objects; from request number `dead_from` on every connection is closed without an answer.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from obstore.store import GCSStore, S3Store
from obstore.store import ObjectStore as Backend

from rsc.store.bulk.objects import ObjectStore, Retry

Fault = Literal["none", "drop", "delay", "truncate", "short", "503", "lie", "hang up"]
Dialect = Literal["s3", "gs"]
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class FlakyServer:
    """Use as a context manager; `store()` is a bulk store on it."""

    def __init__(self, *, dialect: Dialect = "s3") -> None:
        self.dialect = dialect
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.faults: deque[Fault] = deque()
        self.sent_bytes = 0
        self.num_requests = 0
        self.dead_from: int | None = None
        self.loses_put_answers = 0
        self.lock = threading.Lock()
        handler = type("BoundHandler", (_Handler,), {"flaky": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True

    def store(self, *, retry: Retry | None = None) -> ObjectStore:
        """Retries of the HTTP client are off, so that what is tested is ours."""
        return ObjectStore(self._backend(), retry=retry or Retry(attempts=4, first_s=0.001, most_s=0.002))

    @property
    def gs_login(self) -> str:
        """What a service account's key file says to talk to us, without a login."""
        login = {"gcs_base_url": self.url, "disable_oauth": True}
        return json.dumps({**login, "client_email": "", "private_key": "", "private_key_id": ""})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def _backend(self) -> Backend:
        options = {"allow_http": True, "timeout": "5s"}
        if self.dialect == "gs":
            return GCSStore(
                "bucket",
                service_account_key=self.gs_login,
                client_options=options,
                retry_config={"max_retries": 0},
            )
        return S3Store(
            "bucket",
            endpoint=self.url,
            region="us-east-1",
            skip_signature=True,
            virtual_hosted_style_request=False,
            client_options=options,
            retry_config={"max_retries": 0},
        )

    def __enter__(self) -> FlakyServer:
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer waits 40 ms for an acknowledgement of its header
    flaky: FlakyServer

    def parse_request(self) -> bool:
        """Count the request, and close the connection when the server is to be dead."""
        if not super().parse_request():
            return False
        flaky = self.flaky
        with flaky.lock:
            number = flaky.num_requests
            flaky.num_requests += 1
        if flaky.dead_from is not None and number >= flaky.dead_from:
            self.close_connection = True
            return False
        url = urlsplit(self.path)
        self.key = unquote(url.path).removeprefix("/bucket").lstrip("/")
        self.query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        return True

    def do_HEAD(self) -> None:
        data = self.flaky.objects.get(self.key)
        self._answer(404 if data is None else 200, b"", length=len(data or b""))

    def do_GET(self) -> None:
        if "list-type" in self.query:
            return self._answer(200, self._listing())
        data = self.flaky.objects.get(self.key)
        if data is None:
            return self._answer(404, b"")
        with self.flaky.lock:
            fault: Fault = self.flaky.faults.popleft() if self.flaky.faults else "none"
        start, stop = 0, len(data)
        match = _RANGE.fullmatch(self.headers.get("Range", ""))
        if match:
            start, stop = int(match[1]), min(int(match[2]) + 1 if match[2] else stop, stop)
            if start >= len(data):
                return self._answer(416, b"")
        self._answer_with(fault, data[start:stop], start=start, total=len(data), is_range=match is not None)

    def _answer_with(self, fault: Fault, body: bytes, *, start: int, total: int, is_range: bool) -> None:
        if fault == "503":
            return self._answer(503, b"slow down")
        if fault == "hang up":
            self.close_connection = True
            return
        if fault == "delay":
            time.sleep(0.05)
        if fault == "truncate":
            body = body[: len(body) // 2]
        if fault == "lie":
            body = body[:-1] + bytes([body[-1] ^ 1])
        content_range = f"bytes {start}-{start + len(body) - 1}/{total}" if is_range else None
        if fault == "short":
            body = body[: len(body) // 2]
        promised = len(body)
        if fault == "drop":
            body = body[: len(body) // 2]
            self.close_connection = True
        self._answer(206 if is_range else 200, body, length=promised, content_range=content_range)

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with self.flaky.lock:
            header, only_new = {
                "s3": ("If-None-Match", "*"),
                "gs": ("x-goog-if-generation-match", "0"),
            }[self.flaky.dialect]
            is_taken = self.headers.get(header) == only_new and self.key in self.flaky.objects
            if "uploadId" in self.query:
                self.flaky.uploads[self.query["uploadId"]][int(self.query["partNumber"])] = body
            elif not is_taken:
                self.flaky.objects[self.key] = body
        if self.flaky.loses_put_answers:
            self.flaky.loses_put_answers -= 1
            self.close_connection = True
            return
        self._answer(412 if is_taken else 200, b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with self.flaky.lock:
            answer = self._post(body)
        self._answer(200, answer.encode())

    def _post(self, body: bytes) -> str:
        flaky = self.flaky
        if "uploads" in self.query:
            upload = f"upload-{len(flaky.uploads)}"
            flaky.uploads[upload] = {}
            answer = "InitiateMultipartUploadResult"
            return f"<{answer}><UploadId>{upload}</UploadId></{answer}>"
        if "uploadId" in self.query:
            parts = flaky.uploads.pop(self.query["uploadId"])
            flaky.objects[self.key] = b"".join(parts[number] for number in sorted(parts))
            return "<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>"
        keys = re.findall(r"<Key>(.*?)</Key>", body.decode())
        for key in keys:
            flaky.objects.pop(key, None)
        return (
            f"<DeleteResult>{''.join(f'<Deleted><Key>{key}</Key></Deleted>' for key in keys)}</DeleteResult>"
        )

    def do_DELETE(self) -> None:
        with self.flaky.lock:
            if "uploadId" in self.query:
                self.flaky.uploads.pop(self.query["uploadId"], None)
            else:
                self.flaky.objects.pop(self.key, None)
        self._answer(204, b"")

    def _listing(self) -> bytes:
        prefix, delimiter = self.query.get("prefix", ""), self.query.get("delimiter")
        keys, folders = [], set()
        for key in sorted(self.flaky.objects):
            if not key.startswith(prefix):
                continue
            head, found, _ = key[len(prefix) :].partition(delimiter or "\n")
            if delimiter and found:
                folders.add(prefix + head + delimiter)
            else:
                keys.append(key)
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.flaky.objects[key])}</Size><ETag>e</ETag>"
            "<LastModified>2026-11-21T09:00:00.000Z</LastModified></Contents>"
            for key in keys
        )
        commons = "".join(
            f"<CommonPrefixes><Prefix>{escape(each)}</Prefix></CommonPrefixes>" for each in sorted(folders)
        )
        return f"<ListBucketResult>{contents}{commons}</ListBucketResult>".encode()

    def _answer(
        self, status: int, body: bytes, *, length: int | None = None, content_range: str | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.send_header("ETag", '"e"')
        if self.flaky.dialect == "gs":
            self.send_header("x-goog-generation", "1")
        self.send_header("Last-Modified", "Sat, 21 Nov 2026 09:00:00 GMT")
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        self.wfile.write(body)
        if self.command == "GET":
            with self.flaky.lock:
                self.flaky.sent_bytes += len(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""
