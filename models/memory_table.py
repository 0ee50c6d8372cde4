"""What a training step takes on a GPU, by network: the table that patches and micro-batches are settled by.

All of it is predicted (memory.py): `python -m benchmarks memory --table` prints the rows anew; docs/models.md has what
an H200 allocated.
Imports nothing heavy.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class StepPeak:
    """Bytes at the peak of a step's forward and backward passes, without what the optimiser keeps.

    weights: of one copy of them, in float32. fixed: what does not grow with the batch, such as weights, their gradients
    and their 16-bit copies. per_voxel: the rest, for each voxel of the patches computed at once.
    """

    weights: int
    fixed: int
    per_voxel: int

    def step(self, voxels: int) -> int:
        """For that many voxels at once."""
        return self.fixed + self.per_voxel * voxels


# (network of UNET_PRESETS, bits of the arithmetic, whether activations are recomputed), with the default loss; with the
# Dice of each sample it is the same.
PEAKS: dict[tuple[str, int, bool], StepPeak] = {
    ("nnunet", 16, False): StepPeak(weights=124_776_752, fixed=311_924_712, per_voxel=1_136),
    ("nnunet", 16, True): StepPeak(weights=124_776_752, fixed=253_359_336, per_voxel=825),
    ("nnunet", 32, False): StepPeak(weights=124_776_752, fixed=249_553_512, per_voxel=2_252),
    ("nnunet", 32, True): StepPeak(weights=124_776_752, fixed=249_553_512, per_voxel=1_614),
    ("nnunet2d", 16, False): StepPeak(weights=82_457_648, fixed=206_121_960, per_voxel=1_530),
    ("nnunet2d", 16, True): StepPeak(weights=82_457_648, fixed=205_946_694, per_voxel=791),
    ("nnunet2d", 32, False): StepPeak(weights=82_457_648, fixed=164_915_304, per_voxel=3_040),
    ("nnunet2d", 32, True): StepPeak(weights=82_457_648, fixed=164_915_304, per_voxel=1_929),
    ("resenc", 16, False): StepPeak(weights=409_356_592, fixed=1_023_555_560, per_voxel=1_495),
    ("resenc", 16, True): StepPeak(weights=409_356_592, fixed=822_684_904, per_voxel=696),
    ("resenc", 32, False): StepPeak(weights=409_356_592, fixed=819_155_560, per_voxel=2_630),
    ("resenc", 32, True): StepPeak(weights=409_356_592, fixed=819_155_560, per_voxel=1_358),
    ("tiny", 16, False): StepPeak(weights=1_406_104, fixed=3_513_760, per_voxel=306),
    ("tiny", 16, True): StepPeak(weights=1_406_104, fixed=2_865_688, per_voxel=232),
    ("tiny", 32, False): StepPeak(weights=1_406_104, fixed=2_812_216, per_voxel=587),
    ("tiny", 32, True): StepPeak(weights=1_406_104, fixed=2_812_216, per_voxel=429),
    ("strided", 16, False): StepPeak(weights=10_982_212, fixed=27_451_272, per_voxel=178),
    ("strided", 16, True): StepPeak(weights=10_982_212, fixed=22_310_472, per_voxel=138),
    ("strided", 32, False): StepPeak(weights=10_982_212, fixed=21_964_488, per_voxel=258),
    ("strided", 32, True): StepPeak(weights=10_982_212, fixed=21_964_432, per_voxel=184),
    ("tiny2d", 16, False): StepPeak(weights=1_932_056, fixed=4_827_000, per_voxel=733),
    ("tiny2d", 16, True): StepPeak(weights=1_932_056, fixed=3_964_152, per_voxel=489),
    ("tiny2d", 32, False): StepPeak(weights=1_932_056, fixed=3_864_120, per_voxel=1_446),
    ("tiny2d", 32, True): StepPeak(weights=1_932_056, fixed=3_864_120, per_voxel=942),
    ("unet3d", 16, False): StepPeak(weights=5_171_588, fixed=13_014_492, per_voxel=882),
    ("unet3d", 16, True): StepPeak(weights=5_171_588, fixed=10_500_756, per_voxel=604),
    ("unet3d", 32, False): StepPeak(weights=5_171_588, fixed=10_553_136, per_voxel=1_520),
    ("unet3d", 32, True): StepPeak(weights=5_171_588, fixed=10_553_136, per_voxel=1_189),
    ("unet2d", 16, False): StepPeak(weights=1_728_116, fixed=4_347_744, per_voxel=1_022),
    ("unet2d", 16, True): StepPeak(weights=1_728_116, fixed=3_508_836, per_voxel=667),
    ("unet2d", 32, False): StepPeak(weights=1_728_116, fixed=3_526_224, per_voxel=1_961),
    ("unet2d", 32, True): StepPeak(weights=1_728_116, fixed=3_526_224, per_voxel=1_315),
}
