"""The files in what a user names as a source."""

from pathlib import Path

from storage.archives.kinds import SourceKind, find_kind, place_of
from storage.archives.ranges import Ranges
from storage.archives.stream_cases import list_stream
from storage.archives.tar_archive import list_tar
from storage.archives.zip_archive import list_zip
from storage.errors import InputError
from storage.scans.listing import Listing, list_folder


def list_source(source: str | Path) -> Listing:
    """The files of a source; of an archive its directory is read, of a compressed tar archive all of it.

    Raises InputError where `source` is none or cannot be read.
    """
    kind, place = find_kind(source), place_of(source)
    if kind is SourceKind.FOLDER:
        return list_folder(Path(place))
    try:
        ranges = Ranges(place)
        if kind is SourceKind.STREAM:
            return list_stream(ranges)
        return list_zip(ranges) if kind is SourceKind.ZIP else list_tar(ranges)
    except OSError as error:
        raise InputError(f"{place} cannot be read: {error.strerror or error}") from None
