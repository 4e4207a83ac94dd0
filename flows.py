"""The prior's normalizing flow: mean-only couplings with six choices of network (VITS2, section 2.3).

`FLOWS` says which layers one step holds. A new flow is one subclass of `Coupling` and one line there.
"""

from torch import Tensor, nn

import attentions
import modules
from convolutions import Conv1d, cat_channels

N_STEPS = 4
WN_KERNEL, WN_LAYERS = 5, 4


class Coupling(nn.Module):
    """`[x0, x1]` to `[x0, x1 + m(x0)]`: volume-preserving and undone by a subtraction.

    A subclass says what `m` is: `hidden`, and `post`, made by `zero_conv` so that the flow starts as the identity.
    The order in which it makes its layers is that of published optimizer states.
    """

    post: Conv1d
    n_heads = 1  # of attention over the hidden channels, which it must divide

    def hidden(self, x0: Tensor, x_mask: Tensor, g: Tensor | None) -> Tensor:
        """Args: x0 `[b, inter / 2, t]`; x_mask `[b, 1, t]`; g `[b, gin, 1]`. Returns `post`'s input `[b, h, t]`."""
        raise NotImplementedError

    def forward(
        self, x: Tensor, x_mask: Tensor, g: Tensor | None = None, reverse: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Args: x `[b, inter, t]`; x_mask `[b, 1, t]`; g `[b, gin, 1]`. Returns `[b, inter, t]` and a zero `[b]`."""
        x0, x1 = x.chunk(2, 1)
        m = self.post(self.hidden(x0, x_mask, g), mask=x_mask)
        x1 = (x1 - m) * x_mask if reverse else m + x1 * x_mask
        return cat_channels(x0, x1), x.new_zeros(x.size(0))


def zero_conv(in_channels: int, out_channels: int) -> Conv1d:
    """A 1x1 convolution that starts as zero."""
    conv = Conv1d(in_channels, out_channels, 1)
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    return conv


def _transformer(channels: int) -> attentions.Encoder:
    """The small transformer block on one half of the channels: two layers, no relative positions."""
    return attentions.Encoder(channels, channels, n_heads=2, n_layers=2, kernel_size=3, p_dropout=0.1, window_size=None)


class ResidualCoupling(Coupling):
    """VITS's coupling: a WaveNet sees the unchanged half."""

    def __init__(self, channels: int, hidden_channels: int, gin_channels: int = 0):
        super().__init__()
        self.pre = Conv1d(channels // 2, hidden_channels, 1)
        self.enc = modules.WN(hidden_channels, WN_KERNEL, 1, WN_LAYERS, gin_channels)
        self.post = zero_conv(hidden_channels, channels // 2)

    def hidden(self, x0: Tensor, x_mask: Tensor, g: Tensor | None) -> Tensor:
        """`[b, inter / 2, t]` to `[b, h, t]`."""
        return self.enc(self.pre(x0, mask=x_mask), x_mask, g)


class PreConvCoupling(Coupling):
    """A transformer block with a residual connection before the WaveNet: the order of figure 1b of VITS2."""

    def __init__(self, channels: int, hidden_channels: int, gin_channels: int = 0):
        super().__init__()
        self.pre_transformer = _transformer(channels // 2)
        self.pre = Conv1d(channels // 2, hidden_channels, 1)
        self.enc = modules.WN(hidden_channels, WN_KERNEL, 1, WN_LAYERS, gin_channels)
        self.post = zero_conv(hidden_channels, channels // 2)

    def hidden(self, x0: Tensor, x_mask: Tensor, g: Tensor | None) -> Tensor:
        """`[b, inter / 2, t]` to `[b, h, t]`."""
        h = self.pre(x0 + self.pre_transformer(x0, x_mask), mask=x_mask)
        return self.enc(h, x_mask, g)


class PreConv2Coupling(Coupling):
    """As `PreConvCoupling`, with one layer of the full width after the projection, and relative positions."""

    n_heads = 2

    def __init__(self, channels: int, hidden_channels: int, gin_channels: int = 0):
        super().__init__()
        self.pre = Conv1d(channels // 2, hidden_channels, 1)
        self.pre_transformer = attentions.Encoder(
            hidden_channels, hidden_channels, self.n_heads, n_layers=1, kernel_size=WN_KERNEL
        )
        self.enc = modules.WN(hidden_channels, WN_KERNEL, 1, WN_LAYERS, gin_channels)
        self.post = zero_conv(hidden_channels, channels // 2)

    def hidden(self, x0: Tensor, x_mask: Tensor, g: Tensor | None) -> Tensor:
        """`[b, inter / 2, t]` to `[b, h, t]`."""
        h = self.pre(x0, mask=x_mask)
        return self.enc(h + self.pre_transformer(h, x_mask), x_mask, g)


class FFTCoupling(Coupling):
    """A causal transformer block in the WaveNet's place. One layer, four heads: published checkpoints have that."""

    n_heads = 4

    def __init__(self, channels: int, hidden_channels: int, gin_channels: int = 0):
        super().__init__()
        self.pre = Conv1d(channels // 2, hidden_channels, 1)
        self.enc = attentions.FFT(
            hidden_channels,
            filter_channels=768,
            n_heads=self.n_heads,
            n_layers=1,
            kernel_size=5,
            gin_channels=gin_channels,
        )
        self.post = zero_conv(hidden_channels, channels // 2)

    def hidden(self, x0: Tensor, x_mask: Tensor, g: Tensor | None) -> Tensor:
        """`[b, inter / 2, t]` to `[b, h, t]`."""
        h = self.pre(x0, mask=x_mask)
        return h + self.enc(h, x_mask, g)


class MonoInterResidualCoupling(Coupling):
    """A transformer alone, with a residual connection around it. Speakers reach the other couplings only."""

    def __init__(self, channels: int, hidden_channels: int, gin_channels: int = 0):
        super().__init__()
        self.pre_transformer = _transformer(channels // 2)
        self.post = zero_conv(channels // 2, channels // 2)

    def hidden(self, x0: Tensor, x_mask: Tensor, g: Tensor | None) -> Tensor:
        """`[b, inter / 2, t]` to `[b, inter / 2, t]`."""
        return self.pre_transformer(x0, x_mask) + x0


class MonoPostResidualCoupling(Coupling):
    """`[x0, x1]` to `[2 x0, 2 x1 + m(x0)]`: a residual around the whole coupling.

    Four of these scale the latent by 16, and no log-determinant says so. Published checkpoints have that.
    """

    def __init__(self, channels: int, hidden_channels: int, gin_channels: int = 0):
        super().__init__()
        self.pre_transformer = _transformer(channels // 2)
        self.post = zero_conv(channels // 2, channels // 2)

    def hidden(self, x0: Tensor, x_mask: Tensor, g: Tensor | None) -> Tensor:
        """`[b, inter / 2, t]` to `[b, inter / 2, t]`."""
        return self.pre_transformer(x0, x_mask)

    def forward(
        self, x: Tensor, x_mask: Tensor, g: Tensor | None = None, reverse: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Args: x `[b, inter, t]`; x_mask `[b, 1, t]`. Returns `[b, inter, t]` and a zero `[b]`."""
        if reverse:
            x = x / 2
            x0, x1 = x.chunk(2, 1)
            half_m = self.post(self.hidden(x0, x_mask, g), mask=x_mask) / 2
            return cat_channels(x0, x1 - half_m) * x_mask, x.new_zeros(x.size(0))
        coupled, logdet = super().forward(x, x_mask, g)
        return (x + coupled) * x_mask, logdet


FLOWS = {
    None: (ResidualCoupling, modules.Flip),
    "pre_conv": (PreConvCoupling, modules.Flip),
    "pre_conv2": (PreConv2Coupling, modules.Flip),
    "fft": (FFTCoupling, modules.Flip),
    "mono_layer_inter_residual": (ResidualCoupling, modules.Flip, MonoInterResidualCoupling),
    "mono_layer_post_residual": (ResidualCoupling, modules.Flip, MonoPostResidualCoupling),
}
AVAILABLE_FLOW_TYPES = [name for name in FLOWS if name is not None]


class Flow(nn.Module):
    """Four steps of the named kind; forward from posterior to prior, reverse from prior to posterior."""

    def __init__(self, channels: int, hidden_channels: int, gin_channels: int = 0, flow_type: str | None = None):
        super().__init__()
        layers = [layer for _ in range(N_STEPS) for layer in FLOWS[flow_type]]
        self.flows = nn.ModuleList(
            layer(channels, hidden_channels, gin_channels) if issubclass(layer, Coupling) else layer()
            for layer in layers
        )

    def forward(self, x: Tensor, x_mask: Tensor, g: Tensor | None = None, reverse: bool = False) -> Tensor:
        """Args: x `[b, inter, t]`; x_mask `[b, 1, t]`; g `[b, gin, 1]` or None. Returns `[b, inter, t]`."""
        for flow in reversed(self.flows) if reverse else self.flows:
            x, _ = flow(x, x_mask, g, reverse)
        return x
