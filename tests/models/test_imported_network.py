"""Networks of other people's answer as ours do, and what does not fit is refused with shapes and names."""

from dataclasses import replace

import pytest
import torch

from models import (
    UNET_PRESETS,
    Execution,
    ImportedNetwork,
    LossConfig,
    UNet,
    UNetConfig,
    build_network,
    check_network,
    choose_precision,
)
from models.device_setup import settle_execution
from models.memory import NotPredictedError, count_step_bytes, find_peak
from models.precision import BFLOAT16, FLOAT32
from tests import own_networks

OWN, CPU = "tests.own_networks", torch.device("cpu")
SIDES = (16, 16, 16)


def named(name: str, *arguments: str, **changes: object) -> UNetConfig:
    return replace(UNetConfig(network=f"{OWN}:{name}", arguments=arguments), **changes)


def test_without_a_name_it_is_a_u_net() -> None:
    assert isinstance(build_network(UNET_PRESETS["tiny"]), UNet)


@pytest.mark.parametrize(("name", "sides"), [("Plain", [16]), ("Deep", [16, 8]), ("Stacked", [16, 16])])
def test_logits_come_finest_first_and_alone_outside_training(name: str, sides: list[int]) -> None:
    network, image = build_network(named(name, "width=8")), torch.randn(2, 4, *SIDES)
    logits = network(image)
    assert [output.shape for output in logits] == [(2, 3, *(side,) * 3) for side in sides]
    assert [output.shape for output in network.eval()(image)] == [(2, 3, *SIDES)]
    if name == "Stacked":
        assert torch.equal(logits[1], 2 * logits[0])
    check_network(named(name, "width=8"), SIDES)


def test_weights_keep_the_names_that_their_own_library_knows() -> None:
    own, network = own_networks.Plain(4, 3), build_network(named("Plain"))
    assert network.state_dict().keys() == own.state_dict().keys()
    own.load_state_dict(network.state_dict())
    again = build_network(named("Plain"))
    again.load_state_dict(own.state_dict())
    assert all(map(torch.equal, again.state_dict().values(), network.state_dict().values()))
    with pytest.raises(RuntimeError, match="Missing key"):
        again.load_state_dict({})


def test_label_logits_become_regions_outside_training() -> None:
    network, image = build_network(named("Plain", head="labels")), torch.randn(1, 4, *SIDES)
    network.eval()
    assert isinstance(network, ImportedNetwork)
    (logits,), raw = network(image), network.network(image)
    inside = torch.softmax(torch.cat((torch.zeros_like(raw[:, :1]), raw), dim=1), dim=1)
    assert torch.allclose(torch.sigmoid(logits[:, 0]), inside[:, 1:].sum(1), atol=1e-5)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (
            named("Plain", "out_channels=2"),
            r"Plain answers patches \(2, 4, 16, 16, 16\) with logits \(2, 2, 16, 16, 16\)",
        ),
        (named("Plain", "in_channels=1"), r"Plain does not take patches \(2, 4, 16, 16, 16\): RuntimeError: "),
        (named("Halving"), r"with logits \(2, 3, 8, 8, 8\) in training, wanted \(2, 3, 16, 16, 16\)"),
        (named("Named"), "Named answers with a dict of out: wanted logits, or a list of them"),
        (named("Otherwise"), "Otherwise wants channels, classes: give channels=VALUE; it takes channels, classes"),
        (named("Plain", "widht=3"), "Plain has no argument widht, did you mean width"),
        (named("Plain", "width=-1"), r"Plain\(width=-1, in_channels=4, out_channels=3\) fails: "),
        (named("Nothing"), "own_networks has no Nothing that can be called"),
        (UNetConfig(network="os:system", arguments=("command=false",)), "os:system is no class of torch.nn.Module"),
        (UNetConfig(network="torch.hub:load", arguments=("repo_or_dir=a",)), "torch.hub:load is no class"),
        (named("silent"), "silent is no class of torch.nn.Module, nor a function whose annotation says"),
    ],
)
def test_what_does_not_fit_is_refused(config: UNetConfig, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        check_network(config, SIDES)
    assert "\n" not in str(caught.value)
    assert not own_networks.CALLED


def test_a_patch_that_is_not_taken_is_answered_with_one_that_is() -> None:
    check_network(named("Even"), (16, 32, 16))
    with pytest.raises(ValueError, match=r"RuntimeError: wanted multiples of 16; it takes 32 x 16 x 16$"):
        check_network(named("Even"), (30, 16, 20))


def test_other_names_for_scans_and_regions_are_told() -> None:
    check_network(named("Otherwise", "channels={scans}", "classes={regions}", modalities=2, regions=5), SIDES)
    check_network(named("annotated"), SIDES)


def test_nothing_is_computed_where_it_need_not_be(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = []
    forward = own_networks.Plain.forward
    monkeypatch.setattr(
        own_networks.Plain, "forward", lambda self, image: [devices.append(image.device.type), forward(self, image)][1]
    )
    check_network(named("Plain", "width=5"), (256, 256, 256))
    assert devices == ["meta", "meta"]
    state = torch.get_rng_state()
    check_network(named("LooksAtValues", "width=5"), SIDES)
    assert devices == ["meta", "meta", "meta", "cpu", "cpu"]
    assert torch.equal(state, torch.get_rng_state())


def test_nothing_is_assumed_of_how_it_is_fastest() -> None:
    config = named("Plain")
    assert choose_precision(CPU, "auto", config) is FLOAT32
    for device in (CPU, torch.device("cuda")):
        assert settle_execution(Execution(), device, BFLOAT16, config).channels_last is False
    network, image, lying = build_network(config, Execution(channels_last=True)), torch.randn(1, 4, *SIDES), list[int]()
    assert isinstance(network, ImportedNetwork) and isinstance(network.network, own_networks.Plain)
    network.network.first.register_forward_hook(lambda _, given, made: lying.append(given[0].stride()[1]))
    network(image)
    assert lying.pop() == 1  # features innermost
    alike = build_network(config)
    alike.load_state_dict(network.state_dict())
    assert torch.allclose(alike(image)[0], network(image)[0], atol=1e-5)


@pytest.mark.slow
def test_its_memory_is_predicted_or_said_not_to_be() -> None:
    config, loss = named("Plain", "width=8"), LossConfig(function=f"{OWN}:Squares")
    weights = sum(weight.nbytes for weight in own_networks.Plain(4, 3, width=8).parameters())
    peak = find_peak(config, loss, FLOAT32, recompute=False, sides=SIDES)
    assert peak.weights == weights
    features = 4 * (4 + 8)  # the image and the convolution's features, in float32
    assert features < peak.per_voxel < 20 * features
    one, two = (count_step_bytes(config, loss, FLOAT32, sides=SIDES, batch=batch) for batch in (1, 2))
    assert two - one == pytest.approx(peak.per_voxel * 16**3, rel=0.05)
    with pytest.raises(NotPredictedError, match=f"of {OWN}:LooksAtValues it cannot be predicted"):
        find_peak(named("LooksAtValues"), LossConfig(), FLOAT32, recompute=False, sides=SIDES)
