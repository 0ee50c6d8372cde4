"""Cases of a compressed tar archive that their own folder makes: they go out as they come by, in the first pass."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import PurePosixPath

from storage.archives.member import InArchive
from storage.archives.ranges import Ranges
from storage.archives.stream_cases import HELD_BYTES, TABLES, StreamListing
from storage.archives.tar_stream import StreamContents, StreamedMember, stream_members
from storage.scans.case import Case, CaseSearch
from storage.scans.listing import Folder, Listing
from storage.scans.naming import is_nifti_name


class PassingCases:
    """Iterate once for the cases, each holding its files; then ask for the `listing`, which has all there is.

    A folder's files are held until another folder's come. What then makes a labelled case goes out, as `accept` gives
    it. The rest, and what `accept` gives None for, is held until the end, as it may belong to files that are still to
    come, HELD_BYTES of it at most: more is let go by, the oldest first, and needs a pass of its own.
    """

    def __init__(
        self, ranges: Ranges, find: Callable[[Listing], CaseSearch], accept: Callable[[Case], Case | None]
    ) -> None:
        self._ranges = ranges
        self._find = find
        self._accept = accept
        self._contents = StreamContents(archive=ranges.uri)
        self._held: dict[PurePosixPath, dict[str, StreamedMember]] = {}  # by folder, the oldest first

    def __iter__(self) -> Iterator[Case]:
        folder: PurePosixPath | None = None
        for member in stream_members(self._ranges, self._contents, _is_wanted):
            if folder is not None and member.inside.parent != folder:
                yield from self._close(folder)
            folder = member.inside.parent
            if member.data is not None:
                self._held.setdefault(folder, {})[member.name] = member
            while self._held_bytes() > HELD_BYTES and len(self._held) > 1:
                del self._held[next(iter(self._held))]
        if folder is not None:
            yield from self._close(folder)

    def listing(self) -> StreamListing:
        """All files of the archive, those that are still held with their bytes."""
        for path, member in self._contents.files.items():
            held = self._held.get(path.parent, {}).get(path.name)
            if held is not None:
                self._contents.files[path] = replace(held, fault=member.fault)
        listing = self._contents.listing()
        return StreamListing(
            top=listing.top, refused=listing.refused, archive=self._ranges.uri, damaged=self._contents.damaged
        )

    def _close(self, path: PurePosixPath) -> Iterator[Case]:
        """The labelled cases that a folder makes by itself."""
        files = self._held.get(path, {})
        if not any(map(is_nifti_name, files)):
            return
        place = InArchive(archive=self._ranges.uri, inside=path)
        for case in self._find(Listing(top=Folder(path=place, files=dict(sorted(files.items()))))).cases:
            accepted = self._accept(case) if case.label is not None else None
            if case.label is not None and accepted is not None:
                yield accepted
                for file in (*case.files.values(), case.label):
                    files.pop(file.name, None)
        if not files:
            del self._held[path]

    def _held_bytes(self) -> int:
        return sum(len(member.data or b"") for files in self._held.values() for member in files.values())


def _is_wanted(member: StreamedMember) -> bool:
    return is_nifti_name(member.name) or member.name.lower().endswith(TABLES)
