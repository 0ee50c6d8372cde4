"""A page is served on loopback alone, made anew at each look, with what lies beside it and nothing else."""

import http.client
import threading
from collections.abc import Iterator

import pytest

from ray_jobs.pages.serving import make_server

LOOKS: list[str] = []


@pytest.fixture
def port() -> Iterator[int]:
    def page() -> bytes:
        LOOKS.append("")
        return f"look {len(LOOKS)}".encode()

    LOOKS.clear()
    beside = {"a b.png": b"picture", "trials/t/report.html": b"its own"}
    server = make_server(page, beside.get, 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    assert server.server_address[0] == "127.0.0.1"
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def get(port: int, path: str, host: str = "127.0.0.1:8000") -> tuple[int, bytes, str | None]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path, headers={"Host": host})
    answer = connection.getresponse()
    found = answer.status, answer.read(), answer.headers["Content-Type"]
    connection.close()
    return found


def test_the_page_is_made_at_each_look_and_files_beside_it_are_there(port: int) -> None:
    assert get(port, "/") == (200, b"look 1", "text/html; charset=utf-8")
    assert get(port, "/?again", host="localhost")[1] == b"look 2"
    assert get(port, "/a%20b.png") == (200, b"picture", "image/png")
    assert get(port, "/trials/t/report.html")[:2] == (200, b"its own")


@pytest.mark.parametrize("path", ["/nothing", "/../secret", "/trials/%2e%2e/a", "//etc/passwd", "/a/./b"])
def test_nothing_else_is(port: int, path: str) -> None:
    assert get(port, path)[0] == 404


def test_a_name_of_somebodys_that_leads_here_is_refused(port: int) -> None:
    assert get(port, "/", host="evil.example:8000")[0] == 403
    assert LOOKS == []
