"""Transformer blocks: an encoder with relative positions (Shaw et al. 2018) and the causal block of `fft` flows."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

import commons
from kernels import fused
from kernels.convolutions import Conv1d, Dropout

RELATIVE_WINDOW = 4  # distance up to which positions have relative embeddings, as in Glow-TTS
MASKED_SCORE = -1e4  # attention score of masked positions; finite in fp16
CONDITION_LAYER = 3  # layer of the encoder, counted from 1, whose input the condition is added to


class LayerNorm(nn.Module):
    """Layer normalization over the channels of `[b, c, t]`. `kernels.fused.enable` sets `use_kernels`."""

    use_kernels = True

    def __init__(self, channels: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.gamma = nn.Parameter(torch.ones(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        """Normalize x or `plus + x`, `[b, c, t]` to `[b, c, t]`."""
        return fused.add_norm(plus, x, self.gamma, self.beta, self.eps, self.use_kernels)


class MultiHeadAttention(nn.Module):
    """Scaled dot-product self-attention, optionally with relative position embeddings (Shaw et al. 2018, section 3.2).

    The heads share embeddings of distances up to `window_size`; None selects no embeddings. `p_dropout` applies to the
    attention weights. With `proximal_init`, the key projection starts equal to the query projection.
    Raises ValueError if `n_heads` does not divide `channels`.
    """

    def __init__(
        self,
        channels: int,
        n_heads: int,
        p_dropout: float = 0.0,
        *,
        window_size: int | None = None,
        proximal_init: bool = False,
    ):
        super().__init__()
        if channels % n_heads:
            raise ValueError(f"MultiHeadAttention: channels ({channels}) must be a multiple of n_heads ({n_heads})")
        self.n_heads = n_heads
        self.k_channels = channels // n_heads
        self.p_dropout, self.window_size = p_dropout, window_size
        self.conv_q, self.conv_k, self.conv_v, self.conv_o = (Conv1d(channels, channels, 1) for _ in range(4))
        if window_size is not None:
            shape, scale = (1, 2 * window_size + 1, self.k_channels), self.k_channels**-0.5
            self.emb_rel_k, self.emb_rel_v = (nn.Parameter(torch.randn(shape) * scale) for _ in range(2))
        for conv in (self.conv_q, self.conv_k, self.conv_v):
            nn.init.xavier_uniform_(conv.weight)
        if proximal_init:
            self.conv_k.load_state_dict(self.conv_q.state_dict())

    def forward(self, x: Tensor, attn_mask: Tensor) -> Tensor:
        """Args: x `[b, c, t]`; attn_mask `[b, 1, 1 or t, t]`, True where attention is allowed. Returns `[b, c, t]`."""
        # [b, c, t] -> [b, heads, t, c / heads]
        q, k, v = (
            conv(x).view(x.size(0), self.n_heads, self.k_channels, x.size(2)).transpose(2, 3)
            for conv in (self.conv_q, self.conv_k, self.conv_v)
        )
        if self.window_size is None:
            # PyTorch's fast kernels need adjacent channels, which only the layout of GPUs has
            q, k, v = (part if part.stride(-1) == 1 else part.contiguous() for part in (q, k, v))
            output = F.scaled_dot_product_attention(q, k, v, attn_mask, self.p_dropout if self.training else 0.0)
        else:
            q = q / math.sqrt(self.k_channels)
            relative_scores = _relative_to_absolute(q @ self.emb_rel_k.transpose(1, 2), self.window_size)
            scores = (q @ k.transpose(2, 3) + relative_scores).masked_fill(~attn_mask, MASKED_SCORE)
            p_attn = F.dropout(scores.softmax(-1), self.p_dropout, self.training)
            output = p_attn @ v + _absolute_to_relative(p_attn, self.window_size) @ self.emb_rel_v
        return self.conv_o(output.transpose(2, 3).flatten(1, 2))


def _relative_to_absolute(x: Tensor, window: int) -> Tensor:
    """Convert scores `[b, heads, t, 2w + 1]` by distance to `[b, heads, t, t]` by position, 0 outside the window.

    Reading rows of length t + 2w with a stride of t + 2w - 1 shifts each row by one position.
    """
    b, heads, t, _ = x.shape
    x = F.pad(x, (0, t - 1)).flatten(2)[:, :, : t * (t + 2 * window - 1)]
    return x.view(b, heads, t, t + 2 * window - 1)[..., window : window + t]


def _absolute_to_relative(x: Tensor, window: int) -> Tensor:
    """Convert weights `[b, heads, t, t]` by position to `[b, heads, t, 2w + 1]` by distance."""
    b, heads, t, _ = x.shape
    x = F.pad(F.pad(x, (window, window - 1)).flatten(2), (0, t))
    return x.view(b, heads, t, t + 2 * window)[..., : 2 * window + 1]


class FFN(nn.Module):
    """Position-wise feed-forward network: two convolutions with ReLU and dropout between them.

    The output has the length of the input; `causal` pads on the left only.
    """

    def __init__(
        self, channels: int, filter_channels: int, kernel_size: int, p_dropout: float = 0.0, *, causal: bool = False
    ):
        super().__init__()
        left, right = (kernel_size - 1, 0) if causal else ((kernel_size - 1) // 2, kernel_size // 2)
        symmetric = left if left == right else 0  # convolutions can only pad both sides equally
        self.pad = nn.ZeroPad1d((left, right)) if left != right else nn.Identity()
        self.conv_1 = Conv1d(channels, filter_channels, kernel_size, padding=symmetric)
        self.conv_2 = Conv1d(filter_channels, channels, kernel_size, padding=symmetric)
        self.drop = Dropout(p_dropout)

    def forward(self, x: Tensor, x_mask: Tensor) -> Tensor:
        """Args: x `[b, c, t]`; x_mask `[b, 1, t]`. Returns `[b, c, t]`, masked."""
        x = self.drop(self.conv_1(self.pad(commons.masked(x, x_mask)), slope=0.0, mask=x_mask))
        return self.conv_2(self.pad(x), mask=x_mask)


class Encoder(nn.Module):
    """A stack of post-norm transformer layers: attention and FFN, each followed by dropout, residual sum and LayerNorm.

    With `gin_channels`, a condition such as the speaker is added to the input of the third layer (VITS2, section 2.4).
    Raises ValueError if there are fewer layers than that.
    """

    def __init__(
        self,
        hidden_channels: int,
        filter_channels: int,
        n_heads: int,
        n_layers: int,
        kernel_size: int = 1,
        p_dropout: float = 0.0,
        *,
        window_size: int | None = RELATIVE_WINDOW,
        gin_channels: int = 0,
    ):
        super().__init__()
        self.drop = Dropout(p_dropout)
        if gin_channels and n_layers < CONDITION_LAYER:
            condition = f"a condition enters layer {CONDITION_LAYER}"
            raise ValueError(f"Encoder: {condition}, so n_layers must be at least {CONDITION_LAYER}, got {n_layers}")
        self.attn_layers = nn.ModuleList(
            MultiHeadAttention(hidden_channels, n_heads, p_dropout, window_size=window_size) for _ in range(n_layers)
        )
        self.norm_layers_1 = nn.ModuleList(LayerNorm(hidden_channels) for _ in range(n_layers))
        self.ffn_layers = nn.ModuleList(
            FFN(hidden_channels, filter_channels, kernel_size, p_dropout) for _ in range(n_layers)
        )
        self.norm_layers_2 = nn.ModuleList(LayerNorm(hidden_channels) for _ in range(n_layers))
        if gin_channels:
            self.spk_emb_linear = nn.Linear(gin_channels, hidden_channels)

    def forward(self, x: Tensor, x_mask: Tensor, g: Tensor | None = None) -> Tensor:
        """Args: x `[b, h, t]`; x_mask `[b, 1, t]`; g `[b, gin, 1]` or None. Returns `[b, h, t]`, masked."""
        attn_mask = x_mask.unsqueeze(1).bool()  # [b, 1, 1, t]: every position attends to all valid ones
        x = x * x_mask
        layers = zip(self.attn_layers, self.norm_layers_1, self.ffn_layers, self.norm_layers_2)
        for i, (attention, norm_1, ffn, norm_2) in enumerate(layers, start=1):
            if g is not None and i == CONDITION_LAYER:
                x = (x + self.spk_emb_linear(g.transpose(1, 2)).transpose(1, 2)) * x_mask
            x = norm_1(self.drop(attention(x, attn_mask)), plus=x)
            x = norm_2(self.drop(ffn(x, x_mask)), plus=x)
        return x * x_mask


class FFT(nn.Module):
    """The causal transformer block of `fft` flows. With `gin_channels`, a condition gates the input of every layer."""

    def __init__(
        self,
        hidden_channels: int,
        filter_channels: int,
        n_heads: int,
        n_layers: int,
        kernel_size: int,
        *,
        gin_channels: int = 0,
    ):
        super().__init__()
        if gin_channels:
            self.cond_pre = Conv1d(hidden_channels, 2 * hidden_channels, 1)
            self.cond_layer = weight_norm(Conv1d(gin_channels, 2 * hidden_channels * n_layers, 1))
        self.self_attn_layers = nn.ModuleList(
            MultiHeadAttention(hidden_channels, n_heads, proximal_init=True) for _ in range(n_layers)
        )
        self.norm_layers_0 = nn.ModuleList(LayerNorm(hidden_channels) for _ in range(n_layers))
        self.ffn_layers = nn.ModuleList(
            FFN(hidden_channels, filter_channels, kernel_size, causal=True) for _ in range(n_layers)
        )
        self.norm_layers_1 = nn.ModuleList(LayerNorm(hidden_channels) for _ in range(n_layers))

    def forward(self, x: Tensor, x_mask: Tensor, g: Tensor | None = None) -> Tensor:
        """Args: x `[b, h, t]`; x_mask `[b, 1, t]`; g `[b, gin, 1]` or None. Returns `[b, h, t]`, masked."""
        # padding follows the valid frames, so the causal mask hides it from them too
        attn_mask = commons.subsequent_mask(x.size(2), x.device).bool()
        conditions = self.cond_layer(g).chunk(len(self.ffn_layers), 1) if g is not None else ()
        x = x * x_mask
        layers = zip(self.self_attn_layers, self.norm_layers_0, self.ffn_layers, self.norm_layers_1)
        for i, (attention, norm_0, ffn, norm_1) in enumerate(layers):
            if g is not None:
                x = fused.gate(self.cond_pre, x, conditions[i])
            x = norm_0(attention(x, attn_mask), plus=x)
            x = norm_1(ffn(x, x_mask), plus=x)
        return x * x_mask
