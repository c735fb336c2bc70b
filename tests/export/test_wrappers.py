"""The step of DDIM against its equations, written again in float64 NumPy."""

import numpy as np
import pytest
import torch

from clipsynth_export.wrappers import DenoiserStepGraph, ImageEncoderGraph
from clipsynth_rt.bundles.manifest import DiffusionSpec

SPEC = DiffusionSpec(x0_min=-1.0, x0_max=2.0)


class Linear(torch.nn.Module):
    """v = 0.5 x + t + the condition's first entry."""

    def forward(self, x, t, condition):
        return 0.5 * x + t[:, None, None] + condition[:, :1, None]


def reference(x, t, s, condition, weights, eta, noise):
    each = 0.5 * x[None] + t + condition[:, :, :1, None]
    v = np.tensordot(weights, each, 1)
    (at, st), (as_, ss) = ((np.cos(np.pi * u / 2), np.sin(np.pi * u / 2)) for u in (t, s))
    x0 = np.clip(at * x - st * v, SPEC.x0_min, SPEC.x0_max)
    eps = (x - at * x0) / st
    fresh = eta * np.sqrt(ss**2 / st**2) * np.sqrt(max(0.0, 1 - at**2 / as_**2))
    return as_ * x0 + np.sqrt(max(0.0, ss**2 - fresh**2)) * eps + fresh * noise, x0


@pytest.mark.parametrize("times", [(1.0, 0.875), (0.6, 0.1), (1.0, 0.0), (0.001, 0.0)])
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("weights", [[1.0], [2.0, -1.0], [0.0, 1.0]])
def test_step_is_ddim(times, eta, weights):
    random = np.random.default_rng(0)
    x, noise = random.standard_normal((2, 3, 4, 8))
    condition = random.standard_normal((len(weights), 3, 5))
    given = [x, [times[0]], [times[1]], condition, weights, [eta], noise]
    tensors = [torch.tensor(np.asarray(value), dtype=torch.float32) for value in given]
    with torch.no_grad():
        found = DenoiserStepGraph(Linear(), SPEC)(*tensors)
    want = reference(x, *times, condition, np.array(weights), eta, noise)
    for a, b in zip(found, want, strict=True):
        # float32 sines, and the division by sigma(0.001) = 0.0016
        np.testing.assert_allclose(a.numpy(), b, atol=2e-5 / np.sin(np.pi * times[0] / 2))
    assert np.isfinite(found[0].numpy()).all()
    if times[1] == 0.0:
        np.testing.assert_allclose(found[0].numpy(), found[1].numpy(), atol=1e-6)


def test_a_picture_becomes_the_texts_that_fit_it():
    torch.manual_seed(0)
    texts = torch.nn.functional.normalize(torch.randn(5, 8), dim=1)
    near = torch.nn.functional.normalize(texts[[3]] + 0.05 * torch.randn(1, 8), dim=1)
    plain = ImageEncoderGraph(torch.nn.Identity())
    told = ImageEncoderGraph(torch.nn.Identity(), texts)
    torch.testing.assert_close(plain(near), near)
    found = told(near)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(1))
    assert int((found @ texts.T).argmax()) == 3
