"""The networks that are measured: ours by name, and other projects', wrapped to answer as ours do; never shipped."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor, nn
from torch.nn import functional

from models import UNET_PRESETS, ImportedConfig, UNetConfig, check_network
from ray_jobs.exchange.nnunet_plans import describe_architecture, missing_parts
from storage import InputError


def find_network(preset: str, imported: ImportedConfig | None = None) -> UNetConfig:
    """The preset's configuration, of the `imported` network where that names one.

    Raises InputError with the names there are.
    """
    if preset not in UNET_PRESETS:
        raise InputError(f"--preset must be one of {', '.join(UNET_PRESETS)}, got {preset!r}")
    imported = imported or ImportedConfig()
    return replace(UNET_PRESETS[preset], network=imported.network, arguments=imported.arguments)


def check_sides(network: UNetConfig, sides: Sequence[int], flag: str) -> None:
    """Raise InputError where the network does not take patches of these sides, which `flag` gave."""
    try:
        network.check_sides(tuple(sides))
        if network.network is not None:
            check_network(network, tuple(sides))
    except ValueError as unsuitable:
        raise InputError(f"{flag}: {unsuitable}") from None


class LogitsOnly(nn.Module):
    """A network whose outputs are turned into our tuple of logits, finest first."""

    def __init__(self, network: nn.Module, pick: Callable[[nn.Module, Tensor], Sequence[Tensor]]) -> None:
        super().__init__()
        self.network = network
        self._pick = pick

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(self._pick(self.network, image))


def like_pytorch3dunet(config: UNetConfig) -> UNetConfig:
    """Ours, built as pytorch-3dunet builds its own at the same widths."""
    return replace(
        config,
        deep_supervision=0,
        block="pre_norm",
        # pytorch-3dunet's default of 8 groups, or cs231n's 9 where 8 doesn't divide the widths.
        norm_groups=config.norm_groups or (9 if config.widths[0] % 8 else 8),
        encoder_blocks=None,
        decoder_blocks=2,
        down="max_pool",
        up="nearest",
    )


def build_pytorch3dunet(config: UNetConfig) -> nn.Module:
    """pytorch-3dunet's UNet3D or UNet2D at the configuration's widths. Raises ImportError where it isn't installed."""
    from pytorch3dunet.unet3d.model import UNet2D, UNet3D

    kind = UNet3D if config.dimensions == 3 else UNet2D
    network = kind(config.modalities, config.regions, f_maps=list(config.widths), num_groups=config.norm_groups)
    return LogitsOnly(network, lambda module, image: module(image, return_logits=True)[1:])


def like_dynunet(config: UNetConfig) -> UNetConfig:
    """Ours, built as MONAI builds its DynUNet at the same widths."""
    return replace(
        config,
        deep_supervision=0,
        block="plain",
        norm_groups=None,
        encoder_blocks=None,
        decoder_blocks=2,
        down="strided",
        up="transposed",
    )


def build_dynunet(config: UNetConfig) -> nn.Module:
    """MONAI's DynUNet, its nnU-Net, at the configuration's widths. Raises ImportError where it isn't installed.

    Where ours begins with a stride, so does it, and its logits are interpolated: it ends at the first level's voxels.
    """
    from monai.networks.nets import DynUNet

    levels = len(config.widths)
    network = DynUNet(
        spatial_dims=config.dimensions,
        in_channels=config.modalities,
        out_channels=config.regions,
        kernel_size=[3] * levels,
        strides=[config.stem_stride] + [2] * (levels - 1),
        upsample_kernel_size=[2] * (levels - 1),
        filters=config.widths,
    )
    mode = "trilinear" if config.dimensions == 3 else "bilinear"

    def logits(module: nn.Module, image: Tensor) -> Sequence[Tensor]:
        coarse: Tensor = module(image)
        return [coarse if config.stem_stride == 1 else functional.interpolate(coarse, size=image.shape[2:], mode=mode)]

    return LogitsOnly(network, logits)


def is_nnunets(config: UNetConfig) -> bool:
    """Whether nnU-Net v2 has a network of this plan."""
    return not missing_parts(config)


def build_nnunet(config: UNetConfig) -> nn.Module:
    """nnU-Net's own network of the same plan, with as many outputs: of its coarsest its loss has weight 0.

    Raises ImportError where it isn't installed.
    """
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    plan = describe_architecture(config)
    network = get_network_from_plans(*plan.values(), config.modalities, config.regions, deep_supervision=True)
    return LogitsOnly(network, lambda module, image: module(image)[: config.deep_supervision + 1])
