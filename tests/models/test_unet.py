from dataclasses import replace

import pytest
import torch
from torch import nn

from models import (
    UNET_PRESETS,
    Execution,
    Loss,
    LossConfig,
    PrecisionName,
    UNet,
    UNetConfig,
    build_unet,
    choose_precision,
)
from models.device_setup import settle_execution

SMALL = UNetConfig(widths=(4, 8, 12), deep_supervision=1)


@pytest.mark.parametrize(
    ("preset", "parameters"),
    [
        # Of the architectures' own implementations; nnU-Net counts a bias for each convolution, ours carry none there.
        ("unet3d", 1_292_897),
        ("unet2d", 432_029),
        ("nnunet", 31_194_188),
        ("resenc", 102_339_148),
    ],
)
def test_presets_have_the_parameters_of_their_originals(preset: str, parameters: int) -> None:
    with torch.device("meta"):
        network = build_unet(UNET_PRESETS[preset])
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("block", ["plain", "residual", "pre_norm"])
def test_outputs_are_finest_first_and_extra_ones_only_in_training(dimensions: int, block: str) -> None:
    config = replace(SMALL, dimensions=dimensions, block=block)
    network = build_unet(config)
    image = torch.randn(2, 4, *(8, 12, 16)[:dimensions])
    shapes = [tuple(output.shape) for output in network(image)]
    assert shapes == [(2, 3, *(8, 12, 16)[:dimensions]), (2, 3, *(4, 6, 8)[:dimensions])]
    assert len(network.eval()(image)) == 1


def test_every_parameter_receives_a_gradient() -> None:
    for block in ("plain", "residual", "pre_norm"):
        network = build_unet(replace(SMALL, block=block))
        for output in network(torch.randn(1, 4, 8, 8, 8)):
            (output * torch.randn_like(output)).sum().backward(retain_graph=True)
        missing = [name for name, parameter in network.named_parameters() if parameter.grad is None]
        assert missing == []


def test_unsuitable_sides_are_refused_with_the_sizes_that_suit() -> None:
    network = build_unet(UNET_PRESETS["tiny"])
    assert network.config.side_multiple == 8
    with pytest.raises(ValueError, match=r"multiples of 8: take 16 x 40 or 48 x 8,"):
        network(torch.zeros(1, 4, 16, 45, 3))
    with pytest.raises(ValueError, match=r"wanted an image \(B, M, D, H, W\) with 4 modalities, got \(1, 3, 8, 8, 8\)"):
        network(torch.zeros(1, 3, 8, 8, 8))


def test_a_single_voxel_on_the_coarsest_level_is_refused() -> None:
    network = build_unet(UNET_PRESETS["tiny"])
    with pytest.raises(ValueError, match="take 16 along one axis"):
        network(torch.zeros(1, 4, 8, 8, 8))
    assert network(torch.zeros(1, 4, 8, 8, 16))[0].shape == (1, 3, 8, 8, 16)


def test_pooling_networks_take_any_side_that_survives_the_pooling() -> None:
    network = build_unet(UNET_PRESETS["unet3d"]).eval()
    assert network.config.side_multiple == 1
    with torch.no_grad():
        assert network(torch.randn(1, 4, 9, 15, 8))[0].shape == (1, 3, 9, 15, 8)
    with pytest.raises(ValueError, match=r"8 or more: take 8 x 9 x 9"):
        network(torch.zeros(1, 4, 7, 9, 9))


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("block", ["plain", "residual", "pre_norm"])
def test_a_strided_stem_gives_the_outputs_of_a_plain_network_for_less_work(dimensions: int, block: str) -> None:
    image = torch.randn(2, 4, *(16, 24, 32)[:dimensions])
    shapes, voxels, weights = [], [], []
    for stem_stride in (1, 2):
        network = build_unet(replace(SMALL, dimensions=dimensions, block=block, stem_stride=stem_stride))
        network.encoder[0].register_forward_hook(lambda _m, _i, out: voxels.append(out[0, 0].numel()))
        shapes.append([tuple(output.shape) for output in network(image)])
        body = [(name, parameter.shape) for name, parameter in network.named_parameters() if "heads" not in name]
        weights.append(body)
    assert shapes[0] == shapes[1]
    assert voxels[0] == 2**dimensions * voxels[1]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("dimensions", [2, 3])
def test_voxels_of_a_strided_stem_begin_alike_and_learn_to_differ(dimensions: int) -> None:
    network = build_unet(UNetConfig(dimensions=dimensions, widths=(4, 8), stem_stride=2))
    image = torch.randn(1, 4, *(16, 24, 16)[:dimensions])
    (logits,) = network(image)
    assert torch.equal(logits[..., ::2], logits[..., 1::2])
    assert not torch.isclose(logits[..., :-2:2], logits[..., 2::2]).all()
    optimiser = torch.optim.SGD(network.parameters(), 0.1)
    (logits * torch.randn_like(logits)).mean().backward()
    optimiser.step()
    (logits,) = network(image)
    assert not torch.isclose(logits[..., ::2], logits[..., 1::2], rtol=1e-3).all()


def test_a_strided_stem_trains_every_parameter_under_the_loss() -> None:
    network = build_unet(replace(SMALL, stem_stride=2))
    regions = (torch.rand(2, 3, 16, 16, 16) > 0.8).to(torch.uint8)
    Loss(LossConfig())(network(torch.randn(2, 4, 16, 16, 16)), regions).backward()
    assert [name for name, parameter in network.named_parameters() if not parameter.grad.abs().sum() > 0] == []


def test_a_strided_stem_with_a_labels_head_gives_nested_regions() -> None:
    network = build_unet(replace(SMALL, stem_stride=2, head="labels")).eval()
    with torch.no_grad():
        (logits,) = network(torch.randn(1, 4, 16, 16, 16))
    assert (logits[:, :-1] >= logits[:, 1:]).all()


def test_labels_of_regions_are_taken_as_they_are_numbered_here() -> None:
    labels = ((1, 2), (1,), (2,), (3,))
    assert replace(SMALL, head="labels", regions=4, region_labels=labels).outputs == 3
    assert replace(SMALL, head="labels").outputs == SMALL.outputs == 3
    for changed, says in (
        ({"head": "regions"}, "got .* for head='regions'"),
        ({"regions": 3}, "labels of 3 regions"),
        ({"region_labels": ((8, 4), (8,), (4,), (6,))}, r"gives them \(\(\(1, 2\), \(1,\), \(2,\), \(3,\)\)\), got"),
        ({"region_labels": ((1, 2, 3, 4), (2, 3, 4), (3, 4), (4,))}, r"gives them \(None, as these regions nest\)"),
        ({"region_labels": ((1, 2), (2, 3), (4,), (5,))}, "which overlap in part"),
    ):
        given = {"head": "labels", "regions": 4, "region_labels": labels, **changed}
        with pytest.raises(ValueError, match=says):
            replace(SMALL, **given)  # type: ignore[arg-type]


def test_a_strided_stem_doubles_the_multiples() -> None:
    config = replace(SMALL, stem_stride=2)
    assert config.side_multiple == 8
    with pytest.raises(ValueError, match=r"multiples of 8: take 8 or 16 x 16 x 16,"):
        build_unet(config)(torch.zeros(1, 4, 12, 16, 16))
    pooling = replace(UNET_PRESETS["unet3d"], stem_stride=2)
    assert pooling.side_multiple == 2
    network = build_unet(pooling).eval()
    with torch.no_grad():
        assert network(torch.randn(1, 4, 18, 22, 16))[0].shape == (1, 3, 18, 22, 16)


def test_sides_are_rounded_up_to_what_suits_the_depth() -> None:
    for config in (UNET_PRESETS["tiny"], replace(UNET_PRESETS["tiny"], stem_stride=2), UNET_PRESETS["unet3d"]):
        for sides in ((143, 165, 129), (3, 40, 48), (16, 16, 32)):
            rounded = config.round_up_sides(sides)
            config.check_sides(rounded)
            assert all(side <= up for side, up in zip(sides, rounded, strict=True))
            assert config.round_up_sides(rounded) == rounded
    assert UNET_PRESETS["tiny"].round_up_sides((143, 165, 3)) == (144, 168, 8)


@pytest.mark.parametrize(
    "wrong",
    [
        {"widths": (8,)},
        {"widths": (8, 0)},
        {"dimensions": 4},
        {"encoder_blocks": (2,)},
        {"deep_supervision": 5},
        {"down": "max_pool"},
        {"stem_stride": 4},
    ],
)
def test_impossible_configurations_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="UNetConfig"):
        replace(UNET_PRESETS["nnunet"], **wrong)  # type: ignore[arg-type]


def _loss_and_gradients(network: UNet, image: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    loss = sum((output**2).mean() for output in network(image))
    assert isinstance(loss, torch.Tensor)
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("switch", ["channels_last", "activation_checkpointing"])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_switches_change_neither_names_nor_results(switch: str, dimensions: int) -> None:
    config = replace(SMALL, dimensions=dimensions)
    image = torch.randn(2, 4, *(8, 8, 8)[:dimensions])
    results = []
    for on in (False, True):
        torch.manual_seed(1)
        network = build_unet(config, replace(Execution(channels_last=False), **{switch: on}))
        results.append(_loss_and_gradients(network, image))
    (loss, gradients), (other_loss, other_gradients) = results
    torch.testing.assert_close(loss, other_loss)
    assert gradients.keys() == other_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, other_gradients[name], rtol=1e-3, atol=1e-5)


def test_activation_checkpointing_runs_each_level_again() -> None:
    calls = []
    network = build_unet(SMALL, Execution(activation_checkpointing=True))
    network.encoder[1][0].convolution.register_forward_hook(lambda *_: calls.append(1))  # type: ignore[index,union-attr]
    network(torch.randn(1, 4, 8, 8, 8))[0].sum().backward()
    assert len(calls) == 2


def test_activation_checkpointing_keeps_a_fraction_of_the_activations() -> None:
    kept = []
    for on in (False, True):
        sizes: dict[int, int] = {}

        def pack(tensor: torch.Tensor, _sizes: dict[int, int] = sizes) -> torch.Tensor:
            _sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        network = build_unet(SMALL, Execution(activation_checkpointing=on))
        image = torch.randn(1, 4, 32, 32, 32)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            outputs = network(image)
        weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
        kept.append(sum(size for pointer, size in sizes.items() if pointer not in weights))
        del outputs
    assert kept[1] < 0.6 * kept[0]


@pytest.mark.parametrize(("device", "precision"), [("cpu", "bfloat16"), ("cuda", "float16"), ("cuda", "bfloat16")])
def test_the_layout_follows_device_precision_and_network_unless_told(
    device: str, precision: PrecisionName, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True}, raising=False)
    place = torch.device(device)
    arithmetic = choose_precision(place, precision)
    for name, last in (("tiny", True), ("unet3d", False)):
        network = UNET_PRESETS[name]
        settled = settle_execution(Execution(), place, arithmetic, network)
        assert settled.channels_last is (last and device == "cpu")  # no kernel of a GPU works here
        for told in (True, False):
            assert settle_execution(Execution(channels_last=told), place, arithmetic, network).channels_last is told


def test_channels_last_reaches_weights_and_activations() -> None:
    network = build_unet(SMALL, Execution(channels_last=True))
    seen = []
    for module in network.decoder:
        module.register_forward_hook(
            lambda _m, _i, out: seen.append(out.is_contiguous(memory_format=torch.channels_last_3d))
        )
    network(torch.randn(2, 4, 8, 8, 8))
    assert seen == [True, True]


def test_equal_seeds_train_bit_for_bit_alike() -> None:
    image = torch.randn(2, 4, 8, 8, 8)
    runs = []
    for _ in range(2):
        torch.manual_seed(3)
        runs.append(_loss_and_gradients(build_unet(SMALL), image)[1])
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])


@pytest.mark.slow
def test_compilation_keeps_plain_names_and_results(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced whole by torch.compile; the graphs run as they are, since making machine code takes minutes."""
    original = nn.Module.compile
    graphs = []

    def trace_only(network: nn.Module) -> None:
        def backend(graph: torch.fx.GraphModule, _inputs: object) -> object:
            graphs.append(graph)
            return graph.forward

        original(network, backend=backend, fullgraph=True)

    monkeypatch.setattr(nn.Module, "compile", trace_only)
    networks = []
    for compiled in (False, True):
        torch.manual_seed(1)
        networks.append(build_unet(SMALL, Execution(compile=compiled)))
    plain, compiled_network = networks
    assert list(plain.state_dict()) == list(compiled_network.state_dict())
    assert not any(name.startswith(("_orig_mod", "module")) for name in compiled_network.state_dict())
    image = torch.randn(1, 4, 8, 8, 8)
    for one, other in zip(plain(image), compiled_network(image), strict=True):
        torch.testing.assert_close(one, other)
    assert len(graphs) == 1
