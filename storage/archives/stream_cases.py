"""The cases of a compressed tar archive: one pass for the names, one in which each case goes out when it is complete.

What is held meanwhile is the files of cases that are not complete yet, at most HELD_BYTES, and labels to be looked at.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import cast

from storage.archives.member import AGAIN, Fault
from storage.archives.ranges import Ranges
from storage.archives.tar_stream import DECOMPRESS, StreamContents, StreamedMember, stream_members
from storage.errors import InputError
from storage.scans.case import Case, files_of
from storage.scans.gunzip import is_gzip
from storage.scans.listing import Listing

HELD_BYTES = 1 << 30
# Tables and descriptions, which case search reads.
TABLES = (".csv", ".tsv", ".json")
_UNSURE = Fault("the archive's checksum is wrong, and this file has none of its own", AGAIN)


@dataclass(frozen=True, kw_only=True)
class StreamListing(Listing):
    """A compressed tar archive after the pass for the names.

    `damaged`: its checksum is wrong, so that only a file with a checksum of its own can be believed.
    """

    archive: str
    damaged: bool

    def hold_labels(self, cases: Sequence[Case]) -> list[Case]:
        """The same cases, with labels that can be read: another pass, unless all were held in the first.

        Raises InputError where they are more than can be held.
        """
        lacking = {
            label.inside
            for case in cases
            if isinstance(label := case.label, StreamedMember) and label.data is None and label.fault is None
        }
        if not lacking:
            return list(cases)
        held: dict[PurePosixPath, StreamedMember] = {}
        for member in self._pass(lacking):
            held[member.inside] = member.squeezed_up()
            if sum(len(each.data or b"") for each in held.values()) > HELD_BYTES:
                raise InputError(
                    f"the labels of {self.archive} take more than {HELD_BYTES >> 20} MiB, too much to be looked at "
                    f"before anything is converted; say what they mean with --task, or {DECOMPRESS}"
                )
        return [
            replace(case, label=held.get(case.label.inside, case.label))
            if isinstance(case.label, StreamedMember)
            else case
            for case in cases
        ]

    def bring(self, cases: Sequence[Case]) -> Iterator[Case]:
        """Each case when the last of its files has come by, holding them: a pass, in the archive's order.

        Of a case whose files do not come, or lie too far apart, they say so when they are read.
        """
        gathered = _Gathered(cases, self)
        yield from gathered.complete()
        if gathered.paths:
            for member in self._pass(gathered.paths):
                yield from gathered.add(member)
        yield from gathered.rest()

    def _pass(self, paths: Iterable[PurePosixPath]) -> Iterator[StreamedMember]:
        wanted = frozenset(paths)
        contents = StreamContents(archive=self.archive)
        members = stream_members(Ranges(self.archive), contents, lambda member: member.inside in wanted)
        yield from (member for member in members if member.data is not None)


def list_stream(ranges: Ranges) -> StreamListing:
    """Pass over a compressed tar archive for its names.

    Raises InputError where it does not begin as such an archive.
    """
    contents = StreamContents(archive=ranges.uri)
    for member in stream_members(ranges, contents, lambda member: member.name.lower().endswith(TABLES)):
        if member.data is not None and member.inside in contents.files:
            contents.files[member.inside] = replace(member, fault=contents.files[member.inside].fault)
    listing = contents.listing()
    return StreamListing(top=listing.top, refused=listing.refused, archive=ranges.uri, damaged=contents.damaged)


class _Gathered:
    """Files that came by, until the cases that they belong to are complete."""

    def __init__(self, cases: Sequence[Case], listing: StreamListing) -> None:
        self._damaged = listing.damaged
        self._cases = {case.case_id: case for case in cases}
        self._missing = {
            case.case_id: {member.inside for member in _members(case) if member.data is None} for case in cases
        }
        self._owners: dict[PurePosixPath, set[str]] = {}
        for case_id, paths in self._missing.items():
            for path in paths:
                self._owners.setdefault(path, set()).add(case_id)
        self._held: dict[PurePosixPath, StreamedMember] = {}

    @property
    def paths(self) -> Iterable[PurePosixPath]:
        return self._owners.keys()

    def complete(self) -> Iterator[Case]:
        """Cases that a first pass held all files of."""
        for case_id in [case_id for case_id, paths in self._missing.items() if not paths]:
            yield self._give_out(case_id, None)

    def add(self, member: StreamedMember) -> Iterator[Case]:
        """Take a file in; give out cases that it completes, and those that have waited longest where it is too much."""
        path = member.inside
        if not self._owners[path]:  # the archive has it twice, and its case was told so
            return
        self._held[path] = member
        for case_id in sorted(self._owners[path]):
            self._missing[case_id].discard(path)
            if not self._missing[case_id]:
                yield self._give_out(case_id, None)
        while sum(len(each.data or b"") for each in self._held.values()) > HELD_BYTES:
            finding = (
                f"its files lie more than {HELD_BYTES >> 20} MiB apart in an archive that is read from its beginning"
            )
            oldest = next(iter(self._held))
            yield self._give_out(min(self._owners[oldest]), Fault(finding, DECOMPRESS))

    def rest(self) -> Iterator[Case]:
        """Cases of which not all has come."""
        for case_id in sorted(self._cases):
            yield self._give_out(case_id, Fault("the archive cannot be read up to this file", AGAIN))

    def _give_out(self, case_id: str, fault: Fault | None) -> Case:
        """The case, holding its files; `fault` is what those say that are not here."""
        case = self._cases.pop(case_id)
        held = {member.inside: self._held_or(member, fault) for member in _members(case)}
        for path in held.keys() & self._owners.keys():
            self._owners[path].discard(case_id)
            if not self._owners[path]:
                self._held.pop(path, None)
        return replace(
            case,
            files={role: held[cast(StreamedMember, file).inside] for role, file in case.files.items()},
            label=None if case.label is None else held[cast(StreamedMember, case.label).inside],
        )

    def _held_or(self, member: StreamedMember, fault: Fault | None) -> StreamedMember:
        """The member with its bytes, which a first pass may have held already, or with what is wrong with it."""
        here = member if member.data is not None else self._held.get(member.inside)
        if member.fault is not None or here is None or here.data is None:
            return replace(member, fault=member.fault or fault)
        if self._damaged and (here.squeezed or not is_gzip(here.data)):
            return replace(member, data=None, fault=_UNSURE)
        return here


def _members(case: Case) -> list[StreamedMember]:
    return [cast(StreamedMember, file) for file in files_of(case).values()]
