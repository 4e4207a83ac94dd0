"""Transformer blocks: the text encoder's relative attention (Shaw et al. 2018) and the causal block of `fft` flows."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import commons
import fused
from convolutions import Conv1d, Dropout


class LayerNorm(nn.Module):
    """Layer normalisation over the channels of `[b, c, t]`."""

    def __init__(self, channels: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.gamma = nn.Parameter(torch.ones(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        """Normalise x, or `plus + x`, `[b, c, t]`."""
        return fused.add_norm(plus, x, self.gamma, self.beta, self.eps)


class MultiHeadAttention(nn.Module):
    """Scaled dot-product self-attention, with relative positions in a window where `window_size` is given.

    The relative embeddings are shared by the heads, as in VITS. `proximal_init` starts with keys equal to queries.
    """

    def __init__(
        self,
        channels: int,
        n_heads: int,
        p_dropout: float = 0.0,
        window_size: int | None = None,
        proximal_init: bool = False,
    ):
        super().__init__()
        if channels % n_heads:
            raise ValueError(f"{channels} channels cannot be shared by {n_heads} attention heads")
        self.n_heads = n_heads
        self.k_channels = channels // n_heads
        self.p_dropout = p_dropout
        self.window_size = window_size

        self.conv_q = Conv1d(channels, channels, 1)
        self.conv_k = Conv1d(channels, channels, 1)
        self.conv_v = Conv1d(channels, channels, 1)
        self.conv_o = Conv1d(channels, channels, 1)
        if window_size is not None:
            shape = (1, 2 * window_size + 1, self.k_channels)
            self.emb_rel_k = nn.Parameter(torch.randn(shape) * self.k_channels**-0.5)
            self.emb_rel_v = nn.Parameter(torch.randn(shape) * self.k_channels**-0.5)
        for conv in (self.conv_q, self.conv_k, self.conv_v):
            nn.init.xavier_uniform_(conv.weight)
        if proximal_init:
            self.conv_k.load_state_dict(self.conv_q.state_dict())

    def forward(self, x: Tensor, attn_mask: Tensor) -> Tensor:
        """Args: x `[b, c, t]`; attn_mask `[b, 1, 1 or t, t]`, boolean, true where a place may be seen.

        Returns `[b, c, t]`.
        """
        # [b, c, t] -> [b, heads, t, c / heads]
        q, k, v = (
            conv(x).view(x.size(0), self.n_heads, self.k_channels, x.size(2)).transpose(2, 3)
            for conv in (self.conv_q, self.conv_k, self.conv_v)
        )
        if self.window_size is None:
            p_dropout = self.p_dropout if self.training else 0.0
            output = F.scaled_dot_product_attention(q, k, v, attn_mask, p_dropout)
        else:
            output = self._relative_attention(q, k, v, attn_mask)
        return self.conv_o(output.transpose(2, 3).flatten(1, 2))

    def _relative_attention(self, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor) -> Tensor:
        """Attention whose keys and values carry an embedding of the distance; `[b, heads, t, d]` in and out."""
        q = q / math.sqrt(self.k_channels)
        scores = q @ k.transpose(2, 3)
        scores = scores + self._relative_to_absolute(q @ self.emb_rel_k.transpose(1, 2))
        scores = scores.masked_fill(~attn_mask, -1e4)
        p_attn = F.dropout(scores.softmax(-1), self.p_dropout, self.training)
        return p_attn @ v + self._absolute_to_relative(p_attn) @ self.emb_rel_v

    def _relative_to_absolute(self, x: Tensor) -> Tensor:
        """`[b, heads, t, 2w + 1]` by distance to `[b, heads, t, t]` by place, zero outside the window.

        Rows padded to t + 2w and read back one shorter shift each row one place further than the last.
        """
        b, heads, t, _ = x.shape
        w = self.window_size
        x = F.pad(x, (0, t - 1)).flatten(2)[:, :, : t * (t + 2 * w - 1)]
        return x.view(b, heads, t, t + 2 * w - 1)[..., w : w + t]

    def _absolute_to_relative(self, x: Tensor) -> Tensor:
        """`[b, heads, t, t]` by place to `[b, heads, t, 2w + 1]` by distance: the inverse of the above."""
        b, heads, t, _ = x.shape
        w = self.window_size
        x = F.pad(F.pad(x, (w, w - 1)).flatten(2), (0, t))
        return x.view(b, heads, t, t + 2 * w)[..., : 2 * w + 1]


class FFN(nn.Module):
    """Two convolutions with ReLU between them; `causal` pads on the left only."""

    def __init__(
        self,
        channels: int,
        filter_channels: int,
        kernel_size: int,
        p_dropout: float = 0.0,
        causal: bool = False,
    ):
        super().__init__()
        left, right = (kernel_size - 1, 0) if causal else ((kernel_size - 1) // 2, kernel_size // 2)
        self.padding = (left, right) if left != right else None  # what the convolutions cannot do themselves
        both = left if left == right else 0
        self.conv_1 = Conv1d(channels, filter_channels, kernel_size, padding=both)
        self.conv_2 = Conv1d(filter_channels, channels, kernel_size, padding=both)
        self.drop = Dropout(p_dropout)

    def forward(self, x: Tensor, x_mask: Tensor) -> Tensor:
        """Args: x `[b, c, t]`; x_mask `[b, 1, t]`. Returns `[b, c, t]`."""
        x = self.drop(self.conv_1(self._padded(commons.masked(x, x_mask)), slope=0.0, mask=x_mask))
        return self.conv_2(self._padded(x), mask=x_mask)

    def _padded(self, x: Tensor) -> Tensor:
        return F.pad(x, self.padding) if self.padding else x


class Encoder(nn.Module):
    """`n_layers` of post-norm self-attention and FFN; a speaker enters before the third (VITS2, section 2.4)."""

    SPEAKER_LAYER = 2

    def __init__(
        self,
        hidden_channels: int,
        filter_channels: int,
        n_heads: int,
        n_layers: int,
        kernel_size: int = 1,
        p_dropout: float = 0.0,
        window_size: int | None = 4,
        gin_channels: int = 0,
    ):
        super().__init__()
        self.drop = Dropout(p_dropout)
        if gin_channels and n_layers <= self.SPEAKER_LAYER:
            raise ValueError(
                f"a speaker enters the encoder before layer {self.SPEAKER_LAYER + 1}; n_layers is {n_layers}"
            )
        self.attn_layers = nn.ModuleList(
            MultiHeadAttention(hidden_channels, n_heads, p_dropout, window_size) for _ in range(n_layers)
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
        attn_mask = x_mask.unsqueeze(1).bool()  # [b, 1, 1, t]: nobody looks at padding
        x = x * x_mask
        layers = zip(self.attn_layers, self.norm_layers_1, self.ffn_layers, self.norm_layers_2)
        for i, (attention, norm_1, ffn, norm_2) in enumerate(layers):
            if g is not None and i == self.SPEAKER_LAYER:
                x = (x + self.spk_emb_linear(g.transpose(1, 2)).transpose(1, 2)) * x_mask
            x = norm_1(self.drop(attention(x, attn_mask)), plus=x)
            x = norm_2(self.drop(ffn(x, x_mask)), plus=x)
        return x * x_mask


class FFT(nn.Module):
    """The causal block of `fft` flows. A speaker gates the input of every layer."""

    def __init__(
        self,
        hidden_channels: int,
        filter_channels: int,
        n_heads: int,
        n_layers: int,
        kernel_size: int,
        gin_channels: int = 0,
    ):
        super().__init__()
        if gin_channels:
            self.cond_pre = Conv1d(hidden_channels, 2 * hidden_channels, 1)
            self.cond_layer = nn.utils.parametrizations.weight_norm(
                Conv1d(gin_channels, 2 * hidden_channels * n_layers, 1)
            )
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
        # padding stands at the end, where a causal mask already keeps valid places from seeing it
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
