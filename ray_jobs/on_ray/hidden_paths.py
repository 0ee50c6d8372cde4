"""Local paths that some machine does not see: what is said of them, and how training workers look for themselves.

The driver looks on every machine of the cluster before anything starts (ray_start.py). Machines that join later can
only be asked when they are there; on a cluster that starts from zero those are all that train.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

SHARE_IT = "give an s3:// URL or a folder that all nodes share"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeenFile:
    """A local file that the driver sees below the path called `name`; `content` where nobody changes it any more."""

    name: str
    file: Path
    content: bytes | None = None

    def is_hidden(self) -> bool:
        """Whether this machine sees no such file, or another one of its name."""
        try:
            return self.content not in (None, self.file.read_bytes())
        except OSError:
            return True


def look_below(path: str, what: str, file: str, *, fixed: bool) -> list[SeenFile]:
    """Return `file` below the store or folder `path` as this machine sees it; nothing for URLs and where it is not."""
    place = Path(path) / file
    if "://" in path or not place.is_file():
        return []
    return [SeenFile(name=f"{what} {path}", file=place, content=place.read_bytes() if fixed else None)]


def describe_hidden(name: str, found: Sequence[bool], *, places: str = "nodes", remedy: str = SHARE_IT) -> str:
    """`found`: for each of the places whether the path is seen there."""
    return f"{name} is a local path that {found.count(False)} of {len(found)} {places} cannot see; {remedy}"
