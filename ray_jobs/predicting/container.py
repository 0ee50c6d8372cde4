"""What runs in a challenge container: every case below /input segmented into /output. Knows no Ray and no network.

A case that cannot be done leaves an empty segmentation of its grid, a line on stderr and exit status 3: what scores a
challenge may stop at a file that is missing.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ray_jobs.checkpoints.lookup import find_checkpoint
from ray_jobs.predicting.container_config import RunConfig, read_config
from ray_jobs.predicting.predict_config import (
    PredictConfig,
    choose_decision,
    choose_modalities,
    choose_task,
    may_lack_scans,
)
from ray_jobs.predicting.reading import FolderInput
from ray_jobs.predicting.watched import WatchedWork
from ray_jobs.settings.command import parse
from ray_jobs.settings.exit_status import REFUSED
from ray_jobs.settings.label_choice import told_task
from storage import Case, find_cases
from storage.cases.segmentation import encode_empty, encode_segmentation
from storage.scans.naming import is_nifti_name, owner_of
from storage.scans.nifti_header import NiftiError
from storage.store.objects import Objects


def main(arguments: Sequence[str], folder: Path) -> int:
    """Run the entry program that lies in `folder`; return its exit status."""
    return segment_all(parse(arguments, RunConfig, default=read_config(folder), seldom=()))


def segment_all(config: RunConfig) -> int:
    """Segment every case, one after the other; return the exit status."""
    source, output = Path(config.input), Objects(config.output, create=True)
    checkpoints = [find_checkpoint(uri) for uri in config.checkpoint]
    modalities = choose_modalities(_as_for_prediction(config), checkpoints)
    some = may_lack_scans(checkpoints)
    found = find_cases(source, modalities=modalities, names=config.names or None, some=some)
    cases = {case.case_id: replace(case, label=None) for case in found.cases}
    failed: dict[str, str] = {}

    def fail(case_id: str, reason: str, scans: Sequence[Path]) -> None:
        failed[case_id] = reason
        empty = next(_empty_segmentations(scans), None)
        if empty is not None:
            output.put(f"{case_id}.nii.gz", empty)
        said = "its segmentation is empty" if empty is not None else "no scan of it tells the grid, nothing is written"
        print(f"failed {case_id}: {reason.removeprefix(f'{case_id}: ')}; {said}", file=sys.stderr, flush=True)

    for refusal in found.refused:
        if refusal.case_id not in cases:
            fail(refusal.case_id, str(refusal), list(_scans_of(refusal.case_id, source)))
    for folder in _folders_without_case(source, list(cases.values()), list(failed)):
        fail(folder.name, "no file in its folder is called as a scan is; see --names", list(_nifti_files(folder)))
    make = MakeSegmenter(config=config, cases=cases, modalities=modalities)
    with WatchedWork(make, seconds=config.seconds_per_case, gib=config.gib_per_case) as work:
        for number, (case_id, case) in enumerate(cases.items(), start=1):
            segmentation, error = work.do(case_id)
            if error is None:
                output.put(f"{case_id}.nii.gz", segmentation)
                print(f"{number} of {len(cases)}: {case_id}", flush=True)
            else:
                fail(case_id, error, [Path(str(file)) for file in case.files.values()])
    print(f"{len(cases.keys() - failed.keys())} cases segmented, {len(failed)} failed", flush=True)
    return REFUSED if failed else 0


@dataclass(frozen=True, kw_only=True)
class MakeSegmenter:
    """Picklable; called in the process that predicts."""

    config: RunConfig
    cases: dict[str, Case]
    modalities: tuple[str, ...]

    def __call__(self) -> Callable[[str], bytes]:
        import torch

        from models import RegionRules
        from ray_jobs.predicting.prediction import MakePredictor, PredictionPlan

        config, checkpoints = self.config, [find_checkpoint(uri) for uri in self.config.checkpoint]
        task = choose_task(checkpoints)
        decision = choose_decision(_as_for_prediction(config), checkpoints, task)
        plan = PredictionPlan(
            checkpoints=config.checkpoint,
            source=FolderInput(cases=self.cases, modalities=self.modalities, task=task),
            rules=RegionRules(labels=tuple(region.labels for region in task.regions), **vars(decision)),
            inference=config.inference,
            probabilities=False,
        )
        predict = MakePredictor(plan=plan, use_gpu=torch.cuda.is_available())()
        values = (told_task(config.write_task) or task).convention

        def segment(case_id: str) -> bytes:
            predicted = predict(case_id)
            return encode_segmentation(predicted.predicted_DHW, predicted.held.case, values)

        return segment


def _as_for_prediction(config: RunConfig) -> PredictConfig:
    return PredictConfig(checkpoint=config.checkpoint, input=config.input, output=config.output)


def _empty_segmentations(scans: Sequence[Path]) -> Iterator[bytes]:
    """Yield one of each scan whose header can be read."""
    for scan in scans:
        try:
            yield encode_empty(scan)
        except (NiftiError, OSError):
            continue


def _nifti_files(folder: Path) -> Iterator[Path]:
    return (file for file in sorted(folder.rglob("*")) if is_nifti_name(file.name) and file.is_file())


def _scans_of(case_id: str, source: Path) -> Iterator[Path]:
    """Yield the files that are called after the case, or lie in a folder that is."""
    for file in _nifti_files(source):
        if case_id in file.relative_to(source).parts or owner_of(file.name, [case_id]) is not None:
            yield file


def _folders_without_case(source: Path, cases: Sequence[Case], failed: Sequence[str]) -> Iterator[Path]:
    """Yield the folders directly below the input with scans of which nobody knows what they are."""
    files = [Path(str(file)) for case in cases for file in case.files.values()]
    files += [file for case_id in failed for file in _scans_of(case_id, source)]
    known = {file.relative_to(source).parts[0] for file in files}
    for folder in sorted(source.iterdir()):
        if folder.is_dir() and folder.name not in known and next(_nifti_files(folder), None) is not None:
            yield folder
