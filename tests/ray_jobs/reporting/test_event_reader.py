"""Events are read as TensorBoard reads them, while they are written, too."""

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ray_jobs.reporting.event_reader import read_events
from ray_jobs.watching.event_file import EventFile
from tests.ray_jobs.recorded import write_events


def contents(folder: Path) -> list[bytes]:
    return [file.read_bytes() for file in sorted(folder.glob("events.*"))]


def test_scalars_of_two_starts_are_those_of_tensorboard(tmp_path: Path) -> None:
    write_events(tmp_path, 4)
    found = read_events(contents(tmp_path)).scalars
    theirs = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0}).Reload()
    assert set(found) == set(theirs.Tags()["scalars"]) and len(contents(tmp_path)) == 2
    for name, values in found.items():
        assert values == [(event.step, event.value) for event in theirs.Scalars(name)], name
    assert [step for step, _ in found["loss/step"]] == list(range(1, 41))


def test_a_record_that_is_being_written_is_left_for_the_next_look(tmp_path: Path) -> None:
    events = EventFile(tmp_path, print)
    events.begin(1)
    for step in (1, 2):
        events.scalars({"loss": float(step)}, step)
    events.close()
    (file,) = contents(tmp_path)
    for cut in range(1, 12):
        assert read_events([file[:-cut]]).scalars == {"loss": [(1, 1.0)]}
    assert read_events([file]).scalars == {"loss": [(1, 1.0), (2, 2.0)]}
    assert read_events([]).scalars == {}
