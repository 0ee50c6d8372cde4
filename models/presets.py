"""U-Nets by name, for four modalities and the three BraTS regions."""

from models.unet import UNetConfig

UNET_PRESETS: dict[str, UNetConfig] = {
    # nnU-Net's plain network for a 128³ patch (Isensee et al. 2021). Its fifth output has weight 0, so it's left out.
    "nnunet": UNetConfig(widths=(32, 64, 128, 256, 320, 320), deep_supervision=3),
    "nnunet2d": UNetConfig(dimensions=2, widths=(32, 64, 128, 256, 512, 512), deep_supervision=3),
    # nnU-Net's residual encoder (Isensee et al. 2024, "nnU-Net Revisited"), sizes M to L by patch.
    "resenc": UNetConfig(
        widths=(32, 64, 128, 256, 320, 320),
        block="residual",
        encoder_blocks=(1, 3, 4, 6, 6, 6),
        decoder_blocks=1,
        deep_supervision=3,
    ),
    "tiny": UNetConfig(widths=(8, 16, 32, 64), deep_supervision=1),
    # For CPUs and large patches: nothing is computed at the image's own resolution but the logits.
    "strided": UNetConfig(widths=(24, 48, 96, 160), stem_stride=2, deep_supervision=2),
    "tiny2d": UNetConfig(dimensions=2, widths=(16, 32, 64, 128), deep_supervision=1),
    # pytorch-3dunet's UNet3D(4, 3, f_maps=18, num_groups=9) and UNet2D, as cs231n-3d-segmentation trained them.
    "unet3d": UNetConfig(widths=(18, 36, 72, 144), block="pre_norm", norm_groups=9, down="max_pool", up="nearest"),
    "unet2d": UNetConfig(
        dimensions=2, widths=(18, 36, 72, 144), block="pre_norm", norm_groups=9, down="max_pool", up="nearest"
    ),
}
