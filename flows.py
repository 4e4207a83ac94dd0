"""The normalizing flow of the prior: mean-only couplings with six choices of network (VITS2, section 2.3).

`FLOWS` maps the values of `model.transformer_flow_type` in a config to the layers of one step. A new flow is one
subclass of `Coupling`, one line there, and its name in `config.FlowType`.
"""

from torch import Tensor, nn

from attentions import FFT, Encoder
from kernels.convolutions import Conv1d, cat_channels
from modules import WN, Flip, FlowOutput, zero_conv

N_STEPS = 4  # VITS, appendix B.1


class Coupling(nn.Module):
    """A mean-only coupling, `[x0, x1]` to `[x0, x1 + m(x0)]`: its log-determinant is 0 (VITS, section 2.5.2).

    A subclass defines `m` by a method `hidden` and a layer `post`, made by `modules.zero_conv` so that the flow starts
    as the identity. Published optimizer states depend on the order in which a subclass creates its layers.
    """

    post: Conv1d
    n_heads = 1  # attention heads on the hidden channels; `settings.checks.FLOW_HEADS` holds all above 1

    def __init__(self, channels: int, hidden_channels: int, gin_channels: int = 0):
        super().__init__()

    def hidden(self, x0: Tensor, x_mask: Tensor, g: Tensor | None) -> Tensor:
        """Map x0 `[b, inter / 2, t]` to the input of `post`, `[b, h, t]`, where h may be inter / 2.

        Args: x_mask `[b, 1, t]`; g `[b, gin, 1]` or None.
        """
        raise NotImplementedError

    def forward(self, x: Tensor, x_mask: Tensor, g: Tensor | None = None, reverse: bool = False) -> FlowOutput:
        """Args: x `[b, inter, t]`; x_mask `[b, 1, t]`; g `[b, gin, 1]` or None. Returns `[b, inter, t]` and 0 `[b]`."""
        x0, x1 = x.chunk(2, 1)
        m = self.post(self.hidden(x0, x_mask, g), mask=x_mask)
        x1 = (x1 - m) * x_mask if reverse else m + x1 * x_mask
        return cat_channels(x0, x1), x.new_zeros(x.size(0))


def _wavenet(hidden_channels: int, gin_channels: int) -> WN:
    return WN(hidden_channels, kernel_size=5, dilation_rate=1, n_layers=4, gin_channels=gin_channels)


def _half_transformer(half: int) -> Encoder:
    """Return the small transformer block on one half of the channels. It has no relative positions."""
    return Encoder(half, half, n_heads=2, n_layers=2, kernel_size=3, p_dropout=0.1, window_size=None)


class ResidualCoupling(Coupling):
    """The coupling of VITS: a WaveNet of x0."""

    def __init__(self, channels: int, hidden_channels: int, gin_channels: int = 0):
        super().__init__(channels, hidden_channels, gin_channels)
        self.pre = Conv1d(channels // 2, hidden_channels, 1)
        self.enc = _wavenet(hidden_channels, gin_channels)
        self.post = zero_conv(hidden_channels, channels // 2)

    def hidden(self, x0: Tensor, x_mask: Tensor, g: Tensor | None) -> Tensor:
        """Map `[b, inter / 2, t]` to `[b, h, t]`."""
        return self.enc(self.pre(x0, mask=x_mask), x_mask, g)


class PreConvCoupling(Coupling):
    """A transformer block with a residual connection before the WaveNet: the order of VITS2, figure 1b."""

    def __init__(self, channels: int, hidden_channels: int, gin_channels: int = 0):
        super().__init__(channels, hidden_channels, gin_channels)
        self.pre_transformer = _half_transformer(channels // 2)
        self.pre = Conv1d(channels // 2, hidden_channels, 1)
        self.enc = _wavenet(hidden_channels, gin_channels)
        self.post = zero_conv(hidden_channels, channels // 2)

    def hidden(self, x0: Tensor, x_mask: Tensor, g: Tensor | None) -> Tensor:
        """Map `[b, inter / 2, t]` to `[b, h, t]`."""
        return self.enc(self.pre(x0 + self.pre_transformer(x0, x_mask), mask=x_mask), x_mask, g)


class PreConv2Coupling(Coupling):
    """As `PreConvCoupling`, but with one transformer layer on the hidden channels and with relative positions."""

    n_heads = 2

    def __init__(self, channels: int, hidden_channels: int, gin_channels: int = 0):
        super().__init__(channels, hidden_channels, gin_channels)
        self.pre = Conv1d(channels // 2, hidden_channels, 1)
        self.pre_transformer = Encoder(hidden_channels, hidden_channels, self.n_heads, n_layers=1, kernel_size=5)
        self.enc = _wavenet(hidden_channels, gin_channels)
        self.post = zero_conv(hidden_channels, channels // 2)

    def hidden(self, x0: Tensor, x_mask: Tensor, g: Tensor | None) -> Tensor:
        """Map `[b, inter / 2, t]` to `[b, h, t]`."""
        h = self.pre(x0, mask=x_mask)
        return self.enc(h + self.pre_transformer(h, x_mask), x_mask, g)


class FFTCoupling(Coupling):
    """A causal transformer block with a residual connection in place of the WaveNet."""

    n_heads = 4

    def __init__(self, channels: int, hidden_channels: int, gin_channels: int = 0):
        super().__init__(channels, hidden_channels, gin_channels)
        self.pre = Conv1d(channels // 2, hidden_channels, 1)
        filter_channels, n_layers, kernel_size = 768, 1, 5
        self.enc = FFT(hidden_channels, filter_channels, self.n_heads, n_layers, kernel_size, gin_channels=gin_channels)
        self.post = zero_conv(hidden_channels, channels // 2)

    def hidden(self, x0: Tensor, x_mask: Tensor, g: Tensor | None) -> Tensor:
        """Map `[b, inter / 2, t]` to `[b, h, t]`."""
        h = self.pre(x0, mask=x_mask)
        return h + self.enc(h, x_mask, g)


class MonoInterResidualCoupling(Coupling):
    """A transformer block with a residual connection and no WaveNet. It does not use conditions."""

    def __init__(self, channels: int, hidden_channels: int, gin_channels: int = 0):
        super().__init__(channels, hidden_channels, gin_channels)
        self.pre_transformer = _half_transformer(channels // 2)
        self.post = zero_conv(channels // 2, channels // 2)

    def hidden(self, x0: Tensor, x_mask: Tensor, g: Tensor | None) -> Tensor:
        """Map `[b, inter / 2, t]` to `[b, inter / 2, t]`."""
        return self.pre_transformer(x0, x_mask) + x0


class MonoPostResidualCoupling(MonoInterResidualCoupling):
    """A residual connection around the whole coupling: `[x0, x1]` to `[2 x0, 2 x1 + m(x0)]`.

    Four of these scale the latent by 16. The log-determinant that they return, zero, does not account for it; published
    checkpoints were trained so.
    """

    def hidden(self, x0: Tensor, x_mask: Tensor, g: Tensor | None) -> Tensor:
        """Map `[b, inter / 2, t]` to `[b, inter / 2, t]`."""
        return self.pre_transformer(x0, x_mask)

    def forward(self, x: Tensor, x_mask: Tensor, g: Tensor | None = None, reverse: bool = False) -> FlowOutput:
        """Args: x `[b, inter, t]`; x_mask `[b, 1, t]`; g is not used. Returns `[b, inter, t]` and 0 `[b]`."""
        if reverse:
            x0, x1 = (x / 2).chunk(2, 1)
            half_m = self.post(self.hidden(x0, x_mask, g), mask=x_mask) / 2
            return cat_channels(x0, x1 - half_m) * x_mask, x.new_zeros(x.size(0))
        coupled, logdet = super().forward(x, x_mask, g)
        return (x + coupled) * x_mask, logdet


FLOWS: dict[str | None, tuple[type[Coupling] | type[Flip], ...]] = {  # None: use_transformer_flows is false
    None: (ResidualCoupling, Flip),
    "pre_conv": (PreConvCoupling, Flip),
    "pre_conv2": (PreConv2Coupling, Flip),
    "fft": (FFTCoupling, Flip),
    "mono_layer_inter_residual": (ResidualCoupling, Flip, MonoInterResidualCoupling),
    "mono_layer_post_residual": (ResidualCoupling, Flip, MonoPostResidualCoupling),
}
AVAILABLE_FLOW_TYPES = [name for name in FLOWS if name is not None]


class Flow(nn.Module):
    """`N_STEPS` steps of a flow: from posterior to prior or, with `reverse`, from prior to posterior."""

    def __init__(self, channels: int, hidden_channels: int, gin_channels: int = 0, flow_type: str | None = None):
        super().__init__()
        self.flows = nn.ModuleList(
            layer(channels, hidden_channels, gin_channels) if issubclass(layer, Coupling) else layer()
            for _ in range(N_STEPS)
            for layer in FLOWS[flow_type]
        )

    def forward(self, x: Tensor, x_mask: Tensor, g: Tensor | None = None, reverse: bool = False) -> Tensor:
        """Args: x `[b, inter, t]`; x_mask `[b, 1, t]`; g `[b, gin, 1]` or None. Returns `[b, inter, t]`."""
        for flow in reversed(self.flows) if reverse else self.flows:
            x, _ = flow(x, x_mask, g, reverse)
        return x
