"""Other projects' networks, wrapped to answer as ours do; measured, never shipped."""

from collections.abc import Callable

from torch import Tensor, nn

from models import UNetConfig

Builder = Callable[[UNetConfig], nn.Module]


class LogitsOnly(nn.Module):
    """A network whose output is turned into our tuple of logits, finest first."""

    def __init__(self, network: nn.Module, pick: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.network = network
        self._pick = pick

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return (self._pick(self.network, image),)


def build_pytorch3dunet(config: UNetConfig) -> nn.Module:
    """pytorch-3dunet's UNet3D or UNet2D at the configuration's widths. Raises ImportError where it isn't installed."""
    from pytorch3dunet.unet3d.model import UNet2D, UNet3D

    kind = UNet3D if config.dimensions == 3 else UNet2D
    network = kind(
        config.modalities,
        config.regions,
        f_maps=list(config.widths),
        num_groups=config.norm_groups or group_count(config),
    )
    return LogitsOnly(network, lambda module, image: module(image, return_logits=True)[1])


def build_dynunet(config: UNetConfig) -> nn.Module:
    """MONAI's DynUNet, its nnU-Net, at the configuration's widths. Raises ImportError where it isn't installed."""
    from monai.networks.nets import DynUNet

    levels = len(config.widths)
    network = DynUNet(
        spatial_dims=config.dimensions,
        in_channels=config.modalities,
        out_channels=config.regions,
        kernel_size=[3] * levels,
        strides=[1] + [2] * (levels - 1),
        upsample_kernel_size=[2] * (levels - 1),
        filters=config.widths,
    )
    return LogitsOnly(network, lambda module, image: module(image))


def group_count(config: UNetConfig) -> int:
    """pytorch-3dunet's default of 8 groups, or cs231n's 9 where 8 doesn't divide the widths."""
    return 9 if config.widths[0] % 8 else 8
