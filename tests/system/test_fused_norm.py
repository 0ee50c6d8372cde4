"""The GPU's kernels for normalisation and activation, interpreted on a CPU by Triton, beside torch's own operations."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
TRITON = ROOT / ".triton"

# In a process of its own: Triton is asked to interpret when it is imported.
KERNELS = """
import torch
from torch.nn import functional
from models.device_setup import MOST_ERROR
from models.fused_norm import FORMATS, NormActivation, error_on, share_out

assert 0 < error_on(torch.device("cpu")) <= MOST_ERROR
torch.manual_seed(0)
shares = set()
# Features that fill no block, a block, and several; voxels that fill no share, and several.
for shape in ((2, 3, 5, 6, 7), (1, 72, 4, 4, 4), (1, 64, 9, 8, 5)):
    for dtype, bound in ((torch.float32, 1e-5), (torch.float16, 1e-3), (torch.bfloat16, 1e-2)):
        features = (3 * torch.randn(shape) + 5).to(dtype).contiguous(memory_format=FORMATS[len(shape)])
        shares.add(share_out(features)[0][0])
        given = [each.requires_grad_() for each in (features, torch.randn(shape[1]), torch.randn(shape[1]))]
        exact = [each.detach().double().requires_grad_() for each in given]
        direction = torch.randn(shape).to(dtype)  # in the default layout, as some operations hand it on
        for slope in (0.01, 1.0):
            output = NormActivation.apply(*given, 1e-5, slope)
            assert output.dtype is dtype and output.is_contiguous(memory_format=FORMATS[len(shape)])
            wanted = functional.instance_norm(exact[0], weight=exact[1], bias=exact[2])
            wanted = functional.leaky_relu(wanted, slope)
            found = output, *torch.autograd.grad(output, given, direction)
            right = wanted, *torch.autograd.grad(wanted, exact, direction.double())
            for left, right in zip(found, right, strict=True):
                error = float((left.detach() - right.detach()).norm() / right.detach().norm())
                assert error < bound, (shape, dtype, slope, error)
assert 1 in shares and max(shares) > 1, shares
"""

NETWORK = """
import torch
from models import UNET_PRESETS, Execution, Loss, LossConfig, build_unet
from models.blocks import Norm

def forward(norm, features, slope=1.0):
    return norm.forward_fused(features.contiguous(memory_format=torch.channels_last_3d), slope)

results = []
for kernels in (False, True):
    if kernels:
        Norm.forward = forward
    torch.manual_seed(0)
    network = build_unet(UNET_PRESETS["tiny"], Execution(channels_last=True)).train()
    image = torch.randn(1, 4, 16, 16, 16)
    regions = (torch.rand(1, 3, 16, 16, 16) < 0.2).to(torch.uint8)
    loss = Loss(LossConfig())(network(image), regions)
    loss.backward()
    results.append((loss.item(), {name: weight.grad for name, weight in network.named_parameters()}))
(plain, wanted), (other, found) = results
assert abs(plain - other) < 1e-5, (plain, other)
largest = max(float(gradient.norm()) for gradient in wanted.values())
for name, gradient in wanted.items():
    assert float((gradient - found[name]).norm()) < 1e-3 * largest, name
"""


@pytest.mark.parametrize("code", [KERNELS, NETWORK], ids=["kernels", "network"])
def test_the_kernels_compute_what_torch_does(code: str) -> None:
    if not (TRITON / "triton").exists():
        pytest.skip("no Triton: make .triton/.installed fetches it")
    environment = os.environ | {"PYTHONPATH": f"{TRITON}:{ROOT}", "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
