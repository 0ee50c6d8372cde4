"""What reading costs, counted; and damage, found where it is."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import pytest
import zarr
from zarr.storage import ObjectStore

from storage import CohortStore, CorruptStoreError, InputError, create_store, open_store
from storage.labels.tasks import TASKS


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every read, by key and byte range, as the object store sees it."""
    seen: list[str] = []
    get, zarr_get = obstore.get, ObjectStore.get

    def counted(backend: Any, key: str) -> Any:
        seen.append(key)
        return get(backend, key)

    async def zarr_counted(self: Any, key: str, prototype: Any, byte_range: Any = None) -> Any:
        seen.append(f"{key} {type(byte_range).__name__}")
        return await zarr_get(self, key, prototype, byte_range)

    monkeypatch.setattr(obstore, "get", counted)
    monkeypatch.setattr(ObjectStore, "get", zarr_counted)
    return seen


def test_opening_costs_one_read_and_records_none(small_store: CohortStore, reads: list[str]) -> None:
    store = open_store(small_store.uri)
    assert store.digest == small_store.digest
    assert [info.case_id for info in store.infos()] == list(small_store.case_ids)
    assert reads == ["zarr.json"]


@pytest.fixture
def wide_store(tmp_path: Path, case_writer: type[Any], convert_folder: Callable[..., CohortStore]) -> CohortStore:
    """A store of one case that spans 2 x 2 x 2 chunks."""
    case_writer(shape_XYZ=(107, 110, 104), extension=".nii").write(tmp_path / "in", "A")
    return convert_folder(tmp_path / "in")


@pytest.mark.parametrize(
    ("origin", "shape", "chunks"),
    [((0, 0, 0), (40, 40, 40), 1), ((10, 10, 40), (30, 30, 30), 2), ((70, 70, 70), (99, 99, 99), 1)],
)
def test_a_patch_reads_only_its_chunks(
    wide_store: CohortStore, reads: list[str], origin: Any, shape: Any, chunks: int
) -> None:
    wide_store.read_patch("A", origin, shape)
    # One read of the shard's index by its suffix, then one range a chunk; and each array's metadata once.
    for name in ("image", "label"):
        of_array = [key.split(" ")[1] for key in reads if key.startswith(f"cases/A/{name}/c/")]
        ranges = of_array.count("RangeByteRequest")
        assert ranges == chunks
        assert of_array.count("SuffixByteRequest") == 1
        assert len(of_array) == 1 + ranges
        assert reads.count(f"cases/A/{name}/zarr.json") == 1


def test_a_whole_case_is_one_read_an_array(wide_store: CohortStore, reads: list[str]) -> None:
    wide_store.read_case("A")
    assert sorted(key.split(" ")[0] for key in reads) == [
        "cases/A/image/c/0/0/0/0",
        "cases/A/image/zarr.json",
        "cases/A/label/c/0/0/0",
        "cases/A/label/zarr.json",
    ]


def test_patches_equal_the_padded_case(wide_store: CohortStore) -> None:
    image_MDHW, label_DHW = wide_store.read_case("A")
    assert label_DHW is not None
    padded = np.pad(image_MDHW, ((0, 0), (110, 110), (110, 110), (110, 110)))
    padded_label = np.pad(label_DHW, 110)
    random = np.random.default_rng(0)
    for _ in range(30):
        origin = tuple(int(value) for value in random.integers(-90, 110, 3))
        shape = tuple(int(value) for value in random.integers(1, 80, 3))
        patch = wide_store.read_patch("A", origin, shape)  # type: ignore[arg-type]
        window = tuple(slice(110 + start, 110 + start + side) for start, side in zip(origin, shape, strict=True))
        assert (patch.image_MDHW == padded[(slice(None), *window)]).all()
        assert patch.label_DHW is not None
        assert (patch.label_DHW == padded_label[window]).all()


def read_everything(uri: str) -> None:
    store = open_store(uri)
    for case_id in store.case_ids:
        store.read_case(case_id)
        store.foreground(case_id)


@pytest.mark.slow
def test_a_flipped_byte_anywhere_is_found(small_store: CohortStore, flip_byte: Callable[[Path, int], None]) -> None:
    random = np.random.default_rng(0)
    files = [path for path in Path(small_store.uri).rglob("*") if path.is_file()]
    # Empty groups hold nothing that is read, and the records are compared by --verify.
    files = [path for path in files if path.parent.name != "cases" and path.parent.parent.name != "cases"]
    assert len(files) == 1 + 4 * 6
    for path in files:
        whole = path.read_bytes()
        for position in {0, len(whole) - 1, *random.integers(0, len(whole), 3).tolist()}:
            flip_byte(path, position)
            with pytest.raises(CorruptStoreError):
                read_everything(small_store.uri)
            path.write_bytes(whole)
    read_everything(small_store.uri)


def test_the_error_names_case_array_and_chunk(wide_store: CohortStore, flip_byte: Callable[[Path, int], None]) -> None:
    path = Path(wide_store.uri) / "cases" / "A" / "image" / "c" / "0" / "0" / "0" / "0"
    data = path.read_bytes()
    # The shard's index is last: 8 chunks of offset and length, then its crc32c.
    offset, length = np.frombuffer(data[-4 - 8 * 16 :][:-4], dtype="<u8").reshape(8, 2)[5]
    flip_byte(path, int(offset + length // 2))
    for read in (lambda: wide_store.read_case("A"), lambda: wide_store.read_patch("A", (60, 0, 60), (20, 9, 20))):
        with pytest.raises(CorruptStoreError, match=r"case A, array image, chunk \(0, 1, 0, 1\)"):
            read()
    wide_store.read_patch("A", (0, 0, 0), (40, 40, 40))  # the other chunks are sound


def test_a_flipped_byte_of_a_shards_index(wide_store: CohortStore, flip_byte: Callable[[Path, int], None]) -> None:
    path = Path(wide_store.uri) / "cases" / "A" / "image" / "c" / "0" / "0" / "0" / "0"
    flip_byte(path, path.stat().st_size - 20)
    with pytest.raises(CorruptStoreError, match="case A, array image, chunk index"):
        wide_store.read_case("A")


def test_a_missing_chunk_is_not_read_as_zeros(wide_store: CohortStore) -> None:
    (Path(wide_store.uri) / "cases" / "A" / "label" / "c" / "0" / "0" / "0").unlink()
    for read in (lambda: wide_store.read_case("A"), lambda: wide_store.read_patch("A", (0, 0, 0), (9, 9, 9))):
        with pytest.raises(CorruptStoreError, match="case A, array label, every chunk"):
            read()


def test_a_case_replaced_behind_the_index_is_noticed(
    tmp_path: Path, case_writer: type[Any], convert_folder: Callable[..., CohortStore]
) -> None:
    case_writer().write(tmp_path / "in", "A", seed=1)
    store = convert_folder(tmp_path / "in")
    case_writer().write(tmp_path / "other", "A", seed=2)
    other = convert_folder(tmp_path / "other", store=tmp_path / "other.zarr")
    shutil.rmtree(Path(store.uri) / "cases" / "A")
    shutil.copytree(Path(other.uri) / "cases" / "A", Path(store.uri) / "cases" / "A")
    for read in (lambda: store.read_case("A"), lambda: store.read_patch("A", (0, 0, 0), (9, 9, 9))):
        with pytest.raises(CorruptStoreError, match="was changed since it was written"):
            read()


def make_nothing(path: Path) -> None:
    return None


def make_file(path: Path) -> None:
    path.write_text("x")


def make_other_group(path: Path) -> None:
    zarr.open_group(path, mode="w")


@pytest.mark.parametrize("make", [make_nothing, make_file, Path.mkdir, make_other_group])
def test_what_is_not_our_store_is_an_input_error(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "store")
    with pytest.raises(InputError, match="wanted a store"):
        open_store(tmp_path / "store")


def test_a_store_is_not_made_among_other_files(tmp_path: Path) -> None:
    make_file(tmp_path / "thesis.tex")
    with pytest.raises(InputError, match="found other files"):
        create_store(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["thesis.tex"]


def test_a_store_of_other_settings_is_refused(small_store: CohortStore) -> None:
    with pytest.raises(InputError, match="name another store"):
        create_store(small_store.uri, task=TASKS["ped-2024"])
    with pytest.raises(InputError, match="name another store"):
        create_store(small_store.uri, modalities=("flair",))


def test_an_unknown_case(small_store: CohortStore) -> None:
    with pytest.raises(InputError, match="wanted case X"):
        small_store.read_case("X")


@pytest.mark.parametrize("uri", ["http://example.org/store", "s3://", "gs://bucket/x"])
def test_addresses_we_cannot_use(uri: str) -> None:
    with pytest.raises(InputError, match="wanted"):
        open_store(uri)
