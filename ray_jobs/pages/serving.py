"""A page and what lies beside it, served on loopback alone: scans of people are nobody else's to see."""

import mimetypes
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

LOOPBACK = "127.0.0.1"


def make_server(page: Callable[[], bytes], beside: Callable[[str], bytes | None], port: int) -> ThreadingHTTPServer:
    """Return a server of `page`, made anew for each look at it, and of the files `beside` it; port 0 takes a free one.

    It listens on loopback, and answers only those who ask for loopback: a name of somebody's that leads here could
    otherwise read the page from a browser. Raises OSError where the port is taken.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            host = self.headers.get("Host", "").rsplit(":", 1)[0]
            if host not in (LOOPBACK, "localhost"):
                self.send_error(HTTPStatus.FORBIDDEN, f"ask for {LOOPBACK}")
                return
            path = unquote(urlsplit(self.path).path).lstrip("/")
            content = page() if not path else None if _leads_out(path) else beside(path)
            if content is None:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            kind = mimetypes.guess_type(path or "page.html")[0] or "application/octet-stream"
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", f"{kind}; charset=utf-8" if kind.startswith("text/") else kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    return ThreadingHTTPServer((LOOPBACK, port), Handler)


def _leads_out(path: str) -> bool:
    return any(part in ("", ".", "..") for part in path.split("/"))
