"""A host's instance metadata service, IMDSv2 only: `metadata_server.py HOST`. Runs in the host's own namespaces.

HOST/instance.json says what the instance is; HOST/notice.json is its interruption notice, once there is one.
"""

import datetime
import json
import secrets
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HOST = Path(sys.argv[1])
INSTANCE = json.loads((HOST / "instance.json").read_text())
TOKENS: set[str] = set()


def credentials() -> str:
    """What a role's credentials look like; moto takes any."""
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=6)
    keys = {"AccessKeyId": "testing", "SecretAccessKey": "testing", "Token": "testing"}
    now = datetime.datetime.now(datetime.UTC)
    times = {"LastUpdated": f"{now:%Y-%m-%dT%H:%M:%SZ}", "Expiration": f"{until:%Y-%m-%dT%H:%M:%SZ}"}
    return json.dumps({"Code": "Success", "Type": "AWS-HMAC", **times, **keys})


def answer(path: str) -> str | None:
    """The answer to a GET, or None where there is none."""
    roles = "latest/meta-data/iam/security-credentials"
    notice = HOST / "notice.json"
    fixed = {
        "latest/meta-data/instance-id": INSTANCE["id"],
        "latest/meta-data/placement/region": INSTANCE["region"],
        "latest/meta-data/placement/availability-zone": INSTANCE["zone"],
        "latest/dynamic/instance-identity/document": json.dumps({"region": INSTANCE["region"]}),
        roles: INSTANCE["role"],
    }
    if path == f"{roles}/{INSTANCE['role']}":
        return credentials()
    if path == "latest/meta-data/spot/instance-action" and notice.exists():
        return notice.read_text()
    return fixed.get(path)


class Handler(BaseHTTPRequestHandler):
    def do_PUT(self) -> None:
        token = secrets.token_hex(8)
        TOKENS.add(token)
        self.reply(200, token)

    def do_GET(self) -> None:
        if self.headers.get("X-aws-ec2-metadata-token") not in TOKENS:
            self.reply(401, "")
            return
        text = answer(self.path.strip("/"))
        self.reply(404 if text is None else 200, text or "")

    def reply(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *arguments: object) -> None:
        pass


ThreadingHTTPServer(("169.254.169.254", 80), Handler).serve_forever()
