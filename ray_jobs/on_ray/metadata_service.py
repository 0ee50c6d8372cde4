"""What EC2's instance metadata service says about the end of a spot instance, asked as IMDSv2 wants: with a token.

AWS, "Spot Instance interruption notices" and "EC2 instance rebalance recommendations": both paths answer 404 until
there is something to say; a notice comes two minutes ahead, a recommendation earlier, or never.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

ADDRESS = "http://169.254.169.254"
TOKEN = "latest/api/token"
INSTANCE_ACTION = "latest/meta-data/spot/instance-action"
ZONE = "latest/meta-data/placement/availability-zone"
INSTANCE_TYPE, LIFE_CYCLE = "latest/meta-data/instance-type", "latest/meta-data/instance-life-cycle"
REBALANCE = "latest/meta-data/events/recommendations/rebalance"

TOKEN_SECONDS = 21600  # six hours, the longest there is
NOTICE = timedelta(minutes=2)  # how long ahead AWS gives notice

UNAUTHORISED, NOT_FOUND = 401, 404


class MetadataError(Exception):
    """The service could not be asked, or its answer not be read."""


@dataclass(frozen=True, kw_only=True)
class Interruption:
    """A spot interruption notice: what will be done with the instance, and when."""

    action: str
    time: datetime

    def seconds_left(self) -> float:
        """Seconds from now until then; 0 afterwards."""
        return max(0.0, (self.time - datetime.now(UTC)).total_seconds())


class MetadataService:
    """The service at `url`. Every question is asked afresh, but for the token, which is kept until it is refused."""

    def __init__(self, url: str, *, timeout: float = 2.0) -> None:
        self._url = url.rstrip("/")
        self._timeout = timeout
        self._token: str | None = None
        # The service's address means this very machine; a proxy would ask its own.
        self._opener = build_opener(ProxyHandler({}))

    def interruption(self) -> Interruption | None:
        """Return the interruption notice, if there is one. Raises MetadataError."""
        answer = self._get(INSTANCE_ACTION)
        return None if answer is None else _read_notice(answer)

    def rebalance_recommended(self) -> bool:
        """Return whether AWS sees a raised risk of interruption. Raises MetadataError."""
        return self._get(REBALANCE) is not None

    def zone(self) -> str | None:
        """Return the availability zone of this machine. Raises MetadataError."""
        return self._get(ZONE)

    def instance_type(self) -> str | None:
        """Return what kind of machine this is. Raises MetadataError."""
        return self._get(INSTANCE_TYPE)

    def is_spot(self) -> bool:
        """Return whether AWS may take this machine away. Raises MetadataError."""
        return self._get(LIFE_CYCLE) == "spot"

    def _get(self, path: str) -> str | None:
        """The answer, or None where there is nothing to say."""
        try:
            if self._token is None:
                self._token = self._new_token()
            try:
                return self._ask(path, {"X-aws-ec2-metadata-token": self._token})
            except HTTPError as error:
                if error.code != UNAUTHORISED:
                    raise
            self._token = self._new_token()
            return self._ask(path, {"X-aws-ec2-metadata-token": self._token})
        except HTTPError as error:
            if error.code == UNAUTHORISED:
                self._token = None
            raise MetadataError(f"{error.url} answered {error.code} {error.reason}") from error
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", error)  # urllib wraps what happened
            raise MetadataError(f"no instance metadata service answers at {self._url} ({reason})") from error

    def _new_token(self) -> str:
        token = self._ask(TOKEN, {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_SECONDS)}, method="PUT")
        if not token:
            raise MetadataError(f"wanted a token from {self._url}/{TOKEN}, got none; is this IMDSv2?")
        return token

    def _ask(self, path: str, headers: dict[str, str], *, method: str = "GET") -> str | None:
        request = Request(f"{self._url}/{path}", headers=headers, method=method)
        try:
            with self._opener.open(request, timeout=self._timeout) as response:
                answer: bytes = response.read()
        except HTTPError as error:
            if error.code == NOT_FOUND:
                return None
            raise
        return answer.decode(errors="replace")


def _read_notice(answer: str) -> Interruption:
    try:
        notice = json.loads(answer)
        action = str(notice["action"])
    except (ValueError, TypeError, KeyError) as error:
        raise MetadataError(f"wanted an interruption notice as JSON with an action, got {answer[:80]!r}") from error
    try:
        time = datetime.fromisoformat(notice["time"])
    except (ValueError, TypeError, KeyError):
        time = datetime.now(UTC) + NOTICE  # the instance goes all the same
    return Interruption(action=action, time=time if time.tzinfo else time.replace(tzinfo=UTC))
