import pytest
import torch
from torch import nn

from models import NonFiniteGradientsError, OptimiserStep, StepResult, choose_precision
from models.precision import BFLOAT16, FLOAT16, FLOAT32

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capability", "name"), [((7, 5), "float16"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16"), ((6, 1), "float32")]
)
def test_gpus_by_their_capability(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], name: str) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    chosen = choose_precision(torch.device("cuda:0"))
    assert (chosen.name, chosen.use_scaler) == (name, name == "float16")


@pytest.mark.parametrize(
    ("capabilities", "name"),
    [({"amx_bf16": True}, "bfloat16"), ({"avx512_f": True}, "float32")],
)
def test_cpus_by_their_capabilities(monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], name: str) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert choose_precision(CPU).name == name


def test_the_request_overrides_the_device() -> None:
    assert choose_precision(CPU, "float16") == FLOAT16
    assert choose_precision(torch.device("cuda:0"), "float32") == FLOAT32
    with pytest.raises(ValueError, match="wanted auto, float32, bfloat16, float16, got 'fp8'"):
        choose_precision(CPU, "fp8")  # type: ignore[arg-type]


def test_autocast_computes_in_the_chosen_type() -> None:
    layer = nn.Linear(2, 2)
    for precision, dtype in ((FLOAT32, torch.float32), (BFLOAT16, torch.bfloat16)):
        with precision.autocast(CPU):
            assert layer(torch.ones(1, 2)).dtype == dtype


def _stepper(precision_name: str = "float32", **options: object) -> tuple[nn.Linear, OptimiserStep]:
    layer = nn.Linear(2, 1)
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.1)
    step = OptimiserStep(layer, optimiser, choose_precision(CPU, precision_name), device=CPU, **options)  # type: ignore[arg-type]
    return layer, step


def take(step: OptimiserStep, loss: torch.Tensor, **options: object) -> StepResult:
    step.backward(loss)
    return step.update(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_step_is_plain_descent_along_the_clipped_gradient(precision: str) -> None:
    layer, step = _stepper(precision, clip_norm=2.0)
    before = layer.weight.detach().clone()
    result = take(step, (layer.weight * torch.tensor([[30.0, 40.0]])).sum())
    assert result.taken
    assert result.gradient_norm == pytest.approx(50.0)
    torch.testing.assert_close(layer.weight.detach(), before - 0.1 * torch.tensor([[1.2, 1.6]]))


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_gradients_gathered_in_parts_are_those_of_the_whole(precision: str) -> None:
    layer, step = _stepper(precision, clip_norm=None)
    before = layer.weight.detach().clone()
    for part in (torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 3.0]])):
        step.backward((layer.weight * part).sum())
    result = step.update()
    torch.testing.assert_close(layer.weight.detach(), before - 0.1 * torch.tensor([[1.0, 3.0]]))
    assert result.loss == pytest.approx(float((before * torch.tensor([[1.0, 3.0]])).sum()))
    assert take(step, layer.weight.sum()).gradient_norm == pytest.approx(2**0.5)  # nothing is left of the first step


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_step_that_is_not_finite_is_skipped_and_counted(precision: str) -> None:
    layer, step = _stepper(precision)
    before = layer.weight.detach().clone()
    for bad in (float("nan"), float("inf")):
        assert not take(step, (layer.weight * bad).sum()).taken
    assert torch.equal(layer.weight, before)
    assert (step.steps_taken, step.steps_skipped, step.skipped_in_a_row) == (0, 2, 2)
    assert take(step, layer.weight.sum()).taken
    assert (step.steps_taken, step.steps_skipped, step.skipped_in_a_row) == (1, 2, 0)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_fused_optimiser_clips_and_skips_as_another(precision: str) -> None:
    ends = []
    for fused in (False, True):
        torch.manual_seed(0)
        layer = nn.Linear(2, 1)
        optimiser = torch.optim.AdamW(layer.parameters(), lr=0.1, fused=fused)
        step = OptimiserStep(layer, optimiser, choose_precision(CPU, precision), device=CPU, clip_norm=2.0)  # type: ignore[arg-type]
        taken = [take(step, (layer.weight * factor).sum()).taken for factor in (50.0, torch.inf, 3.0, torch.nan, 1.0)]
        assert taken == [True, False, True, False, True]
        ends.append((layer.weight.detach(), step.state_dict()))
    torch.testing.assert_close(*ends)


def test_ten_in_a_row_stop_the_run_with_a_diagnosis() -> None:
    layer, step = _stepper("float16")
    for _ in range(9):
        take(step, (layer.weight * float("inf")).sum())
    with pytest.raises(NonFiniteGradientsError) as raised:
        take(step, (layer.weight * float("inf")).sum(), describe_batch=lambda: "cases a, b")
    text = str(raised.value)
    assert "10 steps in a row" in text
    assert "loss isn't finite" in text
    assert "Gradients not finite: weight." in text  # the bias has none: it isn't blamed
    assert "Weights not finite: none" in text
    assert "loss scale 64" in text  # 65,536 halved ten times
    assert text.endswith("Batch: cases a, b.")


@pytest.mark.parametrize(
    ("weight", "factor", "cause"),
    [
        (float("nan"), float("nan"), "weights are no longer finite"),
        (1e-30, 3e38, "loss is finite but its gradients aren't"),
    ],
)
def test_the_diagnosis_names_the_cause(weight: float, factor: float, cause: str) -> None:
    layer, step = _stepper(stop_after=1)
    nn.init.constant_(layer.weight, weight)
    with pytest.raises(NonFiniteGradientsError, match=cause):
        take(step, (layer.weight * factor).sum() * 10.0)


def test_state_resumes_counts_and_scale() -> None:
    layer, step = _stepper("float16")
    take(step, (layer.weight * float("inf")).sum())
    other_layer, other = _stepper("float16")
    other.load_state_dict(step.state_dict())
    assert other.state_dict() == step.state_dict()
    assert other.state_dict()["scaler"]["scale"] == 32768
    assert take(other, other_layer.weight.sum()).taken
