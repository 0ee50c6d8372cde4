"""A store's bytes, in a local folder or on S3 behind the same few calls; every failure in words a user can act on.

Everything goes through obstore: local writes are renamed into place, S3 requests are retried.
Credentials, region and endpoint come from the standard AWS environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, …).
"""

import errno
import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote, urlparse

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import LocalStore, S3Store

from storage.errors import InputError

if TYPE_CHECKING:
    from obstore.store import S3Config

T = TypeVar("T")

RETRIES = 10
RETRY_SECONDS = 120
BODY_RETRIES = 6
_PARALLEL_READS = 32


class Objects:
    """Keys to bytes below one URI. Keys are relative paths with forward slashes."""

    def __init__(self, uri: str | Path, *, create: bool = False) -> None:
        self.uri, self.folder = parse_uri(uri)
        with explained(self.uri):
            if self.folder is None:
                self.backend: LocalStore | S3Store = _open_s3(self.uri)
                return
            if create and (self.folder.is_dir() or not self.folder.exists()):
                self.folder.mkdir(parents=True, exist_ok=True)
            if not self.folder.is_dir():
                wanted, found = "folder" if create else "store", "a file" if self.folder.exists() else "nothing"
                raise InputError(f"wanted a {wanted} at {self.uri}, found {found}; check the path")
            self.backend = LocalStore(prefix=self.folder)

    def get(self, key: str) -> bytes | None:
        """The object's bytes, or None when there is none."""
        return self._read(lambda: bytes(obstore.get(self.backend, key).bytes()))

    def get_range(self, key: str, start: int, size: int) -> bytes:
        """`size` bytes of an object that has as many from `start` on."""
        data = self._read(lambda: bytes(obstore.get_range(self.backend, key, start=start, length=size)))
        if data is None:
            raise InputError(f"{self.uri}/{key} is gone; it was there a moment ago")
        return data

    def size(self, key: str) -> int | None:
        """How many bytes the object has, or None when there is none."""
        return self._read(lambda: int(obstore.head(self.backend, key)["size"]))

    def _read(self, read: Callable[[], T]) -> T | None:
        """What `read` gives, or None when there is no such object."""
        with explained(self.uri):
            for attempt in itertools.count():
                try:
                    return read()
                except (FileNotFoundError, NotADirectoryError) as error:
                    if "NoSuchBucket" in str(error):
                        raise
                    return None
                except BaseError as error:
                    if "Not a directory (os error 20)" in str(error):  # a file lies where a folder would be
                        return None
                    time.sleep(pause_before_retry(error, attempt))
        raise AssertionError("the loop returns or raises")

    def get_many(self, keys: list[str]) -> list[bytes | None]:
        """Several objects, read side by side, in the order asked for."""
        with ThreadPoolExecutor(_PARALLEL_READS) as pool:
            return list(pool.map(self.get, keys))

    def put(self, key: str, data: bytes) -> None:
        """Write one object whole: a reader sees the old bytes or the new ones, nothing between."""
        with explained(self.uri):
            obstore.put(self.backend, key, data)

    def create(self, key: str, data: bytes) -> bool:
        """Write one object whole unless there is one of that key; return whether it was written."""
        with explained(self.uri):
            try:
                obstore.put(self.backend, key, data, mode="create")
            except (AlreadyExistsError, FileExistsError):
                return False
        return True

    def delete(self, key: str) -> None:
        """Remove one object; fine when there is none."""
        with explained(self.uri), suppress(FileNotFoundError):
            obstore.delete(self.backend, key)

    def delete_folder(self, key: str) -> None:
        """Remove every object below `key`, and what a killed writer left there."""
        with explained(self.uri):
            if self.folder is not None:
                shutil.rmtree(self.folder / key, ignore_errors=True)
            else:
                for batch in obstore.list(self.backend, prefix=f"{key}/"):
                    obstore.delete(self.backend, [meta["path"] for meta in batch])

    def keys(self, folder: str = "") -> list[str]:
        """Keys of all objects below `folder`, or of all there are, sorted."""
        prefix = f"{folder}/" if folder else None
        with explained(self.uri):
            return sorted(meta["path"] for batch in obstore.list(self.backend, prefix=prefix) for meta in batch)

    def folders(self, key: str) -> list[str]:
        """Names of the folders directly below `key`, sorted."""
        with explained(self.uri):
            listing = obstore.list_with_delimiter(self.backend, prefix=key)
            return sorted(str(prefix).rstrip("/").rsplit("/", 1)[-1] for prefix in listing["common_prefixes"])

    def files(self) -> list[str]:
        """Keys of the objects directly below the URI, sorted."""
        with explained(self.uri):
            return sorted(meta["path"] for meta in obstore.list_with_delimiter(self.backend)["objects"])

    def is_empty(self) -> bool:
        """Whether nothing at all lies below the URI."""
        with explained(self.uri):
            if self.folder is not None:
                return next(self.folder.iterdir(), None) is None
            return not any(True for _ in obstore.list(self.backend, chunk_size=1))


def pause_before_retry(error: BaseError, attempt: int) -> float:
    """Seconds to wait where the connection was lost in the middle of an answer, which obstore itself does not retry.

    Raises the error where it is another one, or after BODY_RETRIES attempts.
    """
    text = str(error)
    if attempt >= BODY_RETRIES or not ("kind: Body" in text or "Interrupted" in text or "IncompleteBody" in text):
        raise error
    return float(min(0.1 * 2**attempt, 5.0))


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turn what storage raises into an InputError that names the store and what to do."""
    try:
        yield
    except InputError:
        raise
    except (OSError, BaseError) as error:
        raise InputError(_explain(uri, error)) from error


def _explain(uri: str, error: Exception) -> str:
    text, first_line = str(error), _first_line(error)
    if isinstance(error, PermissionDeniedError | UnauthenticatedError):
        return (
            f"no access to {uri}: {first_line}; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY (and "
            f"AWS_SESSION_TOKEN) or the folder's permissions"
        )
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in text or "os error 28" in text:
        return f"the disk that holds {uri} is full; free space and run again, what is finished is kept"
    if "NoSuchBucket" in text:
        return f"wanted the bucket of {uri}, found none of that name; create it or correct the URL"
    if isinstance(error, PermissionError):
        return f"no permission at {uri} ({first_line}); give this user read and write permission"
    if "ermission denied" in text and isinstance(error, BaseError):
        return f"no permission at {uri}; give this user read and write permission"
    if isinstance(error, OSError) or not uri.startswith("s3://"):
        return f"cannot use {uri}: {first_line}; name another place, or mend this one"
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "the default endpoint")
    return f"cannot reach {uri} through {endpoint}: {first_line}; check the endpoint and the network"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def parse_uri(uri: str | Path) -> tuple[str, Path | None]:
    """The URI made absolute, and the folder it means unless it is remote. Raises InputError for other schemes."""
    text = str(uri)
    if text.startswith("s3://"):
        if not urlparse(text).netloc:
            raise InputError(f"wanted s3://BUCKET/PREFIX, got {text}")
        return text.rstrip("/"), None
    if text.startswith("file://"):
        text = unquote(urlparse(text).path)
    elif "://" in text:
        raise InputError(f"wanted a path or an s3:// URL, got {text}")
    folder = Path(os.path.abspath(Path(text).expanduser()))  # noqa: PTH100 - resolve() would rewrite links in messages
    return str(folder), folder


def refuse_unwritable(uri: str | Path) -> None:
    """Raise InputError where no file can be written at a path, which need not exist yet; leaves nothing there.

    To be asked before anything is computed for it. A bucket is not asked.
    """
    uri, folder = parse_uri(uri)
    if folder is None:
        return
    with explained(uri):
        place = next(parent for parent in (folder, *folder.parents) if parent.exists())
        if not place.is_dir():
            raise InputError(f"wanted a folder at {uri}, found a file at {place}; name another place")
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"?")


def _open_s3(uri: str) -> S3Store:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    config: S3Config = {"endpoint": endpoint} if endpoint else {}
    plain_http = endpoint is not None and endpoint.startswith("http://")
    return S3Store.from_url(
        uri,
        config=config,
        client_options={"allow_http": True} if plain_http else None,
        retry_config={"max_retries": RETRIES, "retry_timeout": timedelta(seconds=RETRY_SECONDS)},
    )
