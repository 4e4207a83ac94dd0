"""Synthesis on a GPU in few launches: the network's steps for one utterance as CUDA graphs, one for each padded length.

A sentence is thousands of small kernels, which the host launches more slowly than the GPU runs them. `GraphedNet` has
`plan`, `latent` and `dec` of the network it is made from, and returns what they return.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from commons import rounded_up
from models import Plan, SynthesizerTrn

Run = Callable[[], Any]
PAD_TOKENS, MOST_TOKENS = 64, 512
PAD_FRAMES, MOST_FRAMES = 128, 2048
PAD_WINDOW = 32  # frames
WARM_UP = 2  # runs before a capture, in which libraries choose their kernels


class GraphedNet:
    """Speaks one utterance at a time; what is longer than its graphs, or not alone, takes the network's own way.

    All within `torch.inference_mode`. A returned tensor holds until the next call.

    Args:
        capture: makes of a function without arguments one that runs it again, and its result, which stays in place.
    """

    def __init__(self, net: SynthesizerTrn, capture: Callable[[Run], tuple[Run, Any]] | None = None):
        self.net = net
        self.device = net.enc_p.emb.weight.device
        self.capture = capture or CudaCapture(self.device)
        self.graphs: dict[tuple, tuple[dict[str, Tensor], Run, Any]] = {}
        self.bucket = 0  # tokens of the latest plan, padded

    def plan(self, x: Tensor, x_lengths: Tensor, sid: Tensor | None, length_scale: float, noise_scale_w: float) -> Plan:
        """As `SynthesizerTrn.plan`; x `[1, t_s]`. Whatever the plan has of tokens is padded."""
        self.bucket = rounded_up(x.size(1), PAD_TOKENS)
        if x.size(0) > 1 or self.bucket > MOST_TOKENS:
            self.bucket = 0
            return self.net.plan(x, x_lengths, sid, length_scale, noise_scale_w)
        given = {
            "x": F.pad(x, (0, self.bucket - x.size(1))),
            "x_lengths": x_lengths,
            "length_scale": torch.tensor(float(length_scale)),
            "noise_scale_w": torch.tensor(float(noise_scale_w)),
        } | ({} if sid is None else {"sid": sid})
        return self._run(("plan", self.bucket), given, self.net.plan)

    def latent(self, planned: Plan, noise_scale: float, t_t: int) -> tuple[Tensor, ...]:
        """As `SynthesizerTrn.latent` of the latest plan; what it returns has frames beyond `t_t`, all zero."""
        frames = rounded_up(t_t, PAD_FRAMES)
        if not self.bucket or frames > MOST_FRAMES:
            return self.net.latent(planned, noise_scale, t_t)

        # the plan is where its graph left it: this graph reads it there
        def run(noise_scale):
            return self.net.latent(planned, noise_scale, frames)

        return self._run(("latent", self.bucket, frames), {"noise_scale": torch.tensor(float(noise_scale))}, run)

    def dec(self, z: Tensor, g: Tensor | None) -> Tensor:
        """As the decoder; z `[1, inter, t_t]`, without padding, which it would hear.

        Two windows of one size, at the start and at the end, overlap by what they hear beyond their edges.
        """
        frames, context = z.size(2), self.net.dec.context
        if frames > MOST_FRAMES:
            return self.net.dec(z, g)
        window = rounded_up(-(-frames // 2) + context, PAD_WINDOW)
        windows = z if window > frames else torch.cat([z[:, :, :window], z[:, :, -window:]])
        given = {"x": windows} | ({} if g is None else {"g": g})
        o = self._run(("dec", *windows.shape), given, self.net.dec)
        if len(windows) == 1:
            return o
        hop = o.size(2) // window
        seam = window - context
        return torch.cat([o[:1, :, : seam * hop], o[1:, :, (seam - frames + window) * hop :]], 2)

    def _run(self, key: tuple, given: dict[str, Tensor], step: Callable) -> Any:
        """Run a step on these inputs by its graph, which is captured if it is the first time."""
        if key not in self.graphs:
            inputs = {name: value.to(self.device, copy=True) for name, value in given.items()}
            self.graphs[key] = inputs, *self.capture(lambda: step(**inputs))
        inputs, replay, result = self.graphs[key]
        for name, value in given.items():
            inputs[name].copy_(value)
        replay()
        return result


class CudaCapture:
    """Captures CUDA graphs, whose memory comes from one pool: only one of them runs at a time."""

    def __init__(self, device: torch.device):
        self.device = device
        self.pool = torch.cuda.graph_pool_handle()

    def __call__(self, run: Run) -> tuple[Run, Any]:
        """Capture what `run` launches. The random state is left as it was, so that a first call draws as later ones."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self.device), torch.random.fork_rng([self.device]):
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP):
                    run()
                with torch.cuda.graph(graph, self.pool, stream, capture_error_mode="thread_local"):
                    result = run()
            torch.cuda.current_stream().wait_stream(stream)
        return graph.replay, result
