"""The loader in a Lightning module: `python examples/lightning_module.py cohort.zarr`."""

import sys
import tempfile
from pathlib import Path

import pytorch_lightning as lightning
import torch

from dali_pipelines import AUGMENTATION_PRESETS, Batch, PatchLoader, SamplingConfig, Shard
from models import Loss, LossConfig, UNetConfig, build_unet
from storage import DecodedCaseCache, open_store, split_cohort


class Segmentation(lightning.LightningModule):
    """A U-Net that trains on the store's patches, each rank on its share of every batch."""

    def __init__(self, cache: DecodedCaseCache) -> None:
        super().__init__()
        self.cache = cache
        modalities, regions = len(cache.store.settings.modalities), len(cache.task.regions)
        self.network = build_unet(UNetConfig(modalities=modalities, regions=regions, widths=(8, 16, 32)))
        self.loss = Loss(LossConfig())

    def train_dataloader(self) -> PatchLoader:
        return PatchLoader(
            self.cache,
            split_cohort(self.cache.store, remember=False).train,
            sampling=SamplingConfig(patch_shape=(32, 32, 32), global_batch_size=2, patches_per_epoch=8),
            augmentation=AUGMENTATION_PRESETS["light"],
            shard=Shard(rank=self.trainer.global_rank, world_size=self.trainer.world_size),
            device=str(self.device),
        )

    def transfer_batch_to_device(self, batch: Batch, *_: object) -> Batch:
        return batch  # it lies there

    def training_step(self, batch: Batch, number: int) -> torch.Tensor:
        loss: torch.Tensor = self.loss(self.network(batch.image), batch.regions)
        self.log("loss", loss, prog_bar=True, batch_size=len(batch.image))
        return loss

    def on_fit_end(self) -> None:
        self.trainer.train_dataloader.close()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def main(store: str) -> lightning.Trainer:
    trainer = lightning.Trainer(max_epochs=2, logger=False, enable_checkpointing=False)
    with tempfile.TemporaryDirectory() as folder:
        trainer.fit(Segmentation(DecodedCaseCache(open_store(store), Path(folder), max_bytes=8 * 2**30)))
    return trainer


if __name__ == "__main__":
    main(sys.argv[1])
