"""Stores on S3, against a real S3 endpoint over HTTP on loopback, and one that drops every tenth request."""

import http.client
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from storage import (
    CohortStore,
    DecodedCaseCache,
    InputError,
    convert_case,
    create_store,
    find_cases,
    open_store,
    split_cohort,
)
from storage.store.cohort_conversion import finish_conversion, plan_conversion
from storage.store.mirror import mirror_store
from storage.store.objects import Objects
from storage.store.verify import verify_case


class DroppingProxy(BaseHTTPRequestHandler):
    """Hands requests on, but breaks every tenth off: half of those before the answer, half in its middle."""

    protocol_version = "HTTP/1.1"
    target = ""
    seen = 0
    dropped = 0
    lock = threading.Lock()

    def handle_any(self) -> None:
        with DroppingProxy.lock:
            DroppingProxy.seen += 1
            number = DroppingProxy.seen
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        connection = http.client.HTTPConnection(self.target, timeout=30)
        connection.request(self.command, self.path, body=body, headers=dict(self.headers))
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        if number % 10 == 0:
            DroppingProxy.dropped += 1
            if number % 20 == 0:
                self.respond(answer, data)
                self.wfile.write(data[: len(data) // 2])
                self.wfile.flush()
            self.close_connection = True
            self.connection.close()
            return
        self.respond(answer, data)
        if self.command != "HEAD":
            self.wfile.write(data)

    def respond(self, answer: http.client.HTTPResponse, data: bytes) -> None:
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "server", "date"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
        self.send_header("Content-Length", length or "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        return

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any


@pytest.fixture
def dropping_endpoint(endpoint: str, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[DroppingProxy]]:
    DroppingProxy.target = endpoint.removeprefix("http://")
    DroppingProxy.seen = DroppingProxy.dropped = 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), DroppingProxy)
    server.handle_error = lambda *_: None  # type: ignore[method-assign] - the client hangs up too
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
    yield DroppingProxy
    server.shutdown()
    server.server_close()


def check_equal(remote: CohortStore, local: CohortStore) -> None:
    assert remote.digest == local.digest
    for case_id in local.case_ids:
        assert verify_case(remote, case_id) == ()
        assert (remote.read_case(case_id).image_MDHW == local.read_case(case_id).image_MDHW).all()


def test_a_store_on_s3_is_the_store_on_disk(
    bucket: str,
    small_source: Path,
    small_store: CohortStore,
    convert_folder: Callable[..., CohortStore],
    tmp_path: Path,
) -> None:
    convert_folder(small_source, store=bucket)
    remote = open_store(bucket)
    check_equal(remote, small_store)
    patch, same = (store.read_patch(remote.case_ids[0], (-3, 2, 1), (9, 8, 7)) for store in (remote, small_store))
    assert (patch.image_MDHW == same.image_MDHW).all()
    assert split_cohort(remote) == split_cohort(small_store) == split_cohort(open_store(bucket))
    cache = DecodedCaseCache(remote, tmp_path / "cache", max_bytes=1 << 30)
    for _ in range(2):
        for case_id in remote.case_ids:
            assert (cache.read_case(case_id).image_MDHW == small_store.read_case(case_id).image_MDHW).all()
    assert (cache.misses, cache.hits) == (4, 4)


def test_a_conversion_that_was_killed_goes_on_where_it_was(bucket: str, small_source: Path) -> None:
    cases = find_cases(small_source).cases
    killed = create_store(bucket)
    convert_case(cases[0], killed)
    # The second is cut off before its commit record, and nothing of it may be taken for a case.
    writer = killed.objects
    writer.put(f"cases/{cases[1].case_id}/image/zarr.json", b"{}")
    assert open_store(bucket).case_ids == ()
    store = create_store(bucket)
    plan = plan_conversion(cases, store.committed_cases())
    assert plan.skipped == (cases[0].case_id,)
    for case in plan.todo:
        convert_case(case, store)
    assert finish_conversion(store, plan.skipped) == []
    assert open_store(bucket).case_ids == tuple(case.case_id for case in cases)
    assert all(verify_case(store, case_id) == () for case_id in store.case_ids)


def test_a_mirror_is_the_store_and_goes_on_where_it_was_cut_off(
    bucket: str, small_store: CohortStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    splits = split_cohort(small_store)
    puts: list[str] = []
    put = Objects.put

    def counted(self: Objects, key: str, data: bytes) -> None:
        puts.append(key)
        if len(puts) == 12:  # in the second case
            raise KeyboardInterrupt
        put(self, key, data)

    with monkeypatch.context() as patch:
        patch.setattr(Objects, "put", counted)
        with pytest.raises(KeyboardInterrupt):
            mirror_store(small_store, bucket)
        cut = len(puts)
        mirror_store(small_store, bucket)
    first = small_store.case_ids[0]
    assert sum(key.startswith(f"cases/{first}/") for key in puts) == 7
    assert sum(key.startswith(f"cases/{first}/") for key in puts[cut:]) == 0
    remote = open_store(bucket)
    check_equal(remote, small_store)
    assert split_cohort(remote) == splits
    back = mirror_store(remote, str(tmp_path / "back"))
    check_equal(back, small_store)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("x")
    with pytest.raises(InputError, match="found other files"):
        mirror_store(remote, str(tmp_path / "other"))


def test_an_endpoint_that_drops_every_tenth_request_loses_nothing(
    bucket: str,
    dropping_endpoint: type[DroppingProxy],
    small_source: Path,
    small_store: CohortStore,
    convert_folder: Callable[..., CohortStore],
) -> None:
    convert_folder(small_source, store=bucket)
    check_equal(open_store(bucket), small_store)
    assert dropping_endpoint.dropped >= 5


def test_a_bucket_that_is_not_there(bucket: str) -> None:
    for use in (open_store, create_store):
        with pytest.raises(InputError, match="wanted the bucket of s3://nobody/x"):
            use("s3://nobody/x")


def test_a_prefix_with_nothing_in_it(bucket: str) -> None:
    with pytest.raises(InputError, match=r"found no zarr\.json"):
        open_store(f"{bucket.rpartition('/')[0]}/elsewhere")


class Forbidding(BaseHTTPRequestHandler):
    """Answers as S3 does to a key that it does not know."""

    protocol_version = "HTTP/1.1"

    def refuse(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b"<Error><Code>InvalidAccessKeyId</Code><Message>no such key</Message></Error>"
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        return

    do_GET = do_PUT = do_POST = refuse


def test_wrong_credentials(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Forbidding)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
    for use in (open_store, create_store):
        with pytest.raises(InputError, match=r"no access to s3://brats/cohort.*check AWS_ACCESS_KEY_ID"):
            use(bucket)
    server.shutdown()
    server.server_close()


def test_nobody_answers(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("storage.store.objects.RETRIES", 1)
    with pytest.raises(InputError, match=r"cannot reach s3://brats/cohort through http://127\.0\.0\.1:9"):
        open_store(bucket)
