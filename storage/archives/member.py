"""What lies in an archive: a file that is read where it lies, a place to be printed, and the tree of both."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import NamedTuple, TypeVar

from storage.errors import Refusal
from storage.scans.listing import MAX_BYTES, Folder, Listing, UnreadableError
from storage.scans.naming import is_nifti_name

AGAIN = "download the archive again"
REPACK = "make the archive anew of plain files and folders, or unpack it and name the folder"
_NESTED = re.compile(r".*\.(zip|7z|rar|tar|tgz|tbz2?|txz|tzst|tar\.(gz|bz2|xz|zst))$", re.IGNORECASE)
# More than any table or description that case search reads.
_MAX_TEXT_BYTES = 1 << 26


class Fault(NamedTuple):
    """Why a member cannot be used."""

    finding: str
    remedy: str = REPACK


class MemberState(NamedTuple):
    """A member's size unpacked, and its time; 0 where the archive keeps none."""

    st_size: int
    st_mtime_ns: int


@dataclass(frozen=True, kw_only=True)
class InArchive:
    """A place in an archive, printed as the archive's own place and then the path inside."""

    archive: str
    inside: PurePosixPath

    @property
    def name(self) -> str:
        """The last part; for all of the archive what it would be called unpacked."""
        return self.inside.name or re.sub(r"\.(zip|tar|tgz|tar\.gz)$", "", PurePosixPath(self.archive).name)

    @property
    def parent(self) -> "InArchive":
        return InArchive(archive=self.archive, inside=self.inside.parent)

    @property
    def parts(self) -> tuple[str, ...]:
        return (*PurePosixPath(self.archive).parts, *self.inside.parts)

    def __str__(self) -> str:
        return f"{self.archive}/{self.inside}" if self.inside.parts else self.archive


@dataclass(frozen=True, kw_only=True)
class Member(InArchive):
    """A file in an archive. One with a `fault` has a name, so that its case is refused by that; it is never read."""

    size: int
    mtime_ns: int
    fault: Fault | None = None

    def stat(self) -> MemberState:
        return MemberState(self.size, self.mtime_ns)

    def read_bytes(self) -> bytes:
        """The file unpacked; raises UnreadableError where it cannot be had, OSError and InputError as reading does."""
        if self.fault is not None:
            raise UnreadableError(*self.fault)
        return self._read()

    def _read(self) -> bytes:
        raise NotImplementedError


M = TypeVar("M", bound=Member)


def checked(member: M, *, packed: int | None = None) -> M:
    """The member, at fault if what it announces is absurd; `packed` is what it takes in the archive, if compressed."""
    most = MAX_BYTES if is_nifti_name(member.name) else _MAX_TEXT_BYTES
    fault = member.fault
    if fault is None and member.size > most:
        fault = Fault(f"the archive announces {member.size} bytes, {most} are the most that such a file has", AGAIN)
    # No deflate stream holds more: https://zlib.net/zlib_tech.html, "Maximum Compression Factor".
    if fault is None and packed is not None and member.size > 1032 * packed + 1024:
        finding = f"the archive announces {member.size} bytes out of {packed}, which no compression makes"
        fault = Fault(finding, AGAIN)
    return replace(member, fault=fault)


@dataclass(kw_only=True)
class Contents:
    """An archive's members as they are found, sorted into those that have a place and those refused."""

    archive: str
    files: dict[PurePosixPath, Member] = field(default_factory=dict)
    refused: list[Refusal] = field(default_factory=list)

    def refuse(self, name: str, fault: Fault) -> None:
        """List a member, or the archive's rest, that belongs to no case."""
        place = f"{self.archive}/{name}" if name else self.archive
        case_id = PurePosixPath(name or self.archive).name or name
        self.refused.append(Refusal(case_id=case_id, file=place, finding=fault.finding, remedy=fault.remedy))

    def place(self, name: str) -> PurePosixPath | None:
        """Where a member of this name lies inside; None, and refused, where that is outside."""
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\0" in name or re.match(r"[A-Za-z]:", name):
            self.refuse(name, Fault("its path leads out of the archive"))
            return None
        return path

    def add(self, member: Member) -> None:
        """List a file. What is none of a case's is refused if it is odd, else it is not looked at."""
        shadow = member.inside.name.startswith(".") or "__MACOSX" in member.inside.parts
        if not shadow and _NESTED.fullmatch(member.inside.name):
            remedy = "take it out of there and name it as the source"
            self.refuse(str(member.inside), Fault("an archive within the archive", remedy))
        elif member.inside in self.files:
            twice = Fault("the archive has two files of this name")
            self.files[member.inside] = replace(self.files[member.inside], fault=twice)
        elif member.fault is not None and not is_nifti_name(member.name):
            self.refuse(str(member.inside), member.fault)
        else:
            self.files[member.inside] = member

    def listing(self) -> Listing:
        """All of it as a source."""
        return Listing(top=build_tree(self.archive, self.files), refused=tuple(self.refused))


def build_tree(archive: str, files: Mapping[PurePosixPath, Member]) -> Folder:
    """The folders of an archive, of which many name none, by the paths of its files."""
    by_folder: dict[PurePosixPath, dict[str, Member]] = {PurePosixPath(): {}}
    for path in sorted(files):
        for above in reversed(path.parents):
            by_folder.setdefault(above, {})
        by_folder[path.parent][path.name] = files[path]
    below: dict[PurePosixPath, dict[str, Folder]] = {path: {} for path in by_folder}
    made = {
        path: Folder(path=InArchive(archive=archive, inside=path), files=by_folder[path], folders=below[path])
        for path in sorted(by_folder)
    }
    for path, folder in made.items():
        if path.parts:
            below[path.parent][path.name] = folder
    return made[PurePosixPath()]
