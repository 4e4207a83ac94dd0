"""All flows: the inverse, and the log-determinant against autograd."""

import pytest
import tiny
import torch

import modules
from flows import AVAILABLE_FLOW_TYPES, FLOWS, Flow

LENGTHS = (9, 6)
MASK = (torch.arange(9) < torch.tensor(LENGTHS)[:, None]).unsqueeze(1).double()


def flow_of(kind, gin_channels=0):
    return tiny.randomise(Flow(8, 8, gin_channels, kind)).double().eval()


@pytest.mark.parametrize("gin_channels", [0, 6])
@pytest.mark.parametrize("kind", FLOWS)
def test_reverse_inverts_forward(kind, gin_channels):
    flow = flow_of(kind, gin_channels)
    x = torch.randn(2, 8, 9, dtype=torch.float64) * MASK
    g = torch.randn(2, 6, 1, dtype=torch.float64) if gin_channels else None
    y = flow(x, MASK, g)
    assert (y - x).abs().max() > 0.1  # not the identity
    assert torch.allclose(flow(y, MASK, g, reverse=True), x, atol=1e-9)
    assert torch.allclose(flow(flow(x, MASK, g, reverse=True), MASK, g), x, atol=1e-9)
    assert not (y * (1 - MASK)).any()
    if g is not None:
        assert not torch.allclose(flow(x, MASK, -g), y)


@pytest.mark.parametrize("kind", FLOWS)
def test_couplings_return_a_log_determinant_of_zero(kind):
    """It is correct for all but `mono_layer_post_residual`, which doubles each channel four times."""
    flow = flow_of(kind)
    x = torch.randn(1, 8, 3, dtype=torch.float64)
    mask = torch.ones(1, 1, 3, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: flow(x.view(1, 8, 3), mask).flatten(), x.flatten())
    hidden = 4 * 24 * torch.tensor(2.0).log() if kind == "mono_layer_post_residual" else torch.tensor(0.0)
    assert torch.allclose(jacobian.slogdet().logabsdet, hidden.double(), atol=1e-6)
    for layer in flow.flows:
        assert torch.equal(layer(x, mask)[1], torch.zeros(1))


def test_new_flow_is_the_identity():
    """Four flips cancel; `mono_layer_post_residual` doubles its input four times."""
    x = torch.randn(2, 8, 9) * MASK.float()
    for kind in FLOWS:
        y = Flow(8, 8, 0, kind)(x, MASK.float())
        assert torch.allclose(y, 16 * x if kind == "mono_layer_post_residual" else x, atol=1e-5), kind


def test_available_flow_types_are_the_keys_of_the_registry():
    assert [None, *AVAILABLE_FLOW_TYPES] == list(FLOWS)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("layer", ["ConvFlow", "ElementwiseAffine", "Log", "Flip"])
def test_log_determinants_match_autograd(layer, reverse):
    made = {"ConvFlow": (2, 4, 3, 3), "ElementwiseAffine": (2,)}.get(layer, ())
    flow = tiny.randomise(getattr(modules, layer)(*made), 0.8).double()
    mask = torch.tensor([[[1.0, 1.0, 1.0, 0.0]]], dtype=torch.float64)
    x = (torch.rand(1, 2, 4, dtype=torch.float64) + 0.5) * mask
    if layer == "ConvFlow":
        x = 3 * (x - 1) * mask
    g = torch.randn(1, 4, 4, dtype=torch.float64) if layer == "ConvFlow" else None
    _, logdet = flow(x, mask, g=g, reverse=reverse)

    def of_valid(values):
        full = torch.cat([values.view(1, 2, 3), x[:, :, 3:]], 2)
        return flow(full, mask, g=g, reverse=reverse)[0][:, :, :3].flatten()

    jacobian = torch.autograd.functional.jacobian(of_valid, x[:, :, :3].flatten())
    assert logdet.shape == (1,)
    assert torch.allclose(jacobian.slogdet().logabsdet, logdet[0], atol=1e-8)


@pytest.mark.parametrize("layer", ["ConvFlow", "ElementwiseAffine", "Log", "Flip"])
def test_reverse_inverts_small_flows(layer):
    made = {"ConvFlow": (2, 4, 3, 3), "ElementwiseAffine": (2,)}.get(layer, ())
    flow = tiny.randomise(getattr(modules, layer)(*made), 0.8).double()
    x = (torch.rand(2, 2, 9, dtype=torch.float64) * 6 + 0.01) * MASK
    y, logdet = flow(x, MASK)
    back, inverse_logdet = flow(y, MASK, reverse=True)
    assert torch.allclose(back, x, atol=1e-6)
    assert torch.allclose(inverse_logdet, -logdet, atol=1e-4)
