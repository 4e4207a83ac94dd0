"""CUDA graphs of synthesis: each step of the network for one utterance, one graph for each padded length.

A sentence takes thousands of small kernels, and the host launches them more slowly than the GPU runs them. `GraphedNet`
has the methods `plan`, `latent` and `dec` of a network and returns the same results.
"""

import logging
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from commons import rounded_up
from conditions import Bundle
from models import Plan, SynthesizerTrn

logger = logging.getLogger(__name__)

Results = tuple[Any, ...]  # tensors, and None for a missing g
Run = Callable[[], Results]
Capture = Callable[[Run], tuple[Callable[[], None], Results]]
PAD_TOKENS, MAX_TOKENS = 64, 512  # lengths are padded to multiples of the first, up to the second
PAD_FRAMES, MAX_FRAMES = 128, 2048
PAD_WINDOW = 32  # frames
WARM_UP = 2  # runs before a capture, in which libraries choose their kernels


class GraphedNet:
    """A network whose steps run as CUDA graphs for one utterance at a time.

    Batches and utterances that are longer than the graphs run without them, and so do all after a capture fails.
    Either way, a seed gives the same results. `dec` is a decoder to use in place of the network's, such as its copy in
    fp16. `capture` returns, for a function, another that runs it again, and the tensors of its results, which every run
    overwrites. A run may also overwrite the results of other functions.
    """

    def __init__(self, net: SynthesizerTrn, dec: nn.Module | None = None, capture: Capture | None = None):
        self.net = net
        self.decoder = dec or net.dec
        self.device = net.enc_p.emb.weight.device
        self.capture: Capture | None = capture or CudaCapture(self.device)
        self.graphs: dict[tuple[Any, ...], tuple[dict[str, Tensor], Callable[[], None], Results]] = {}

    def plan(self, x: Tensor, x_lengths: Tensor, conditions: Bundle, length_scale: float, noise_scale_w: float) -> Plan:
        """As `SynthesizerTrn.plan`; x `[1, t_s]`. The results are padded to `MAX_TOKENS` tokens."""
        tokens = rounded_up(x.size(1), PAD_TOKENS)
        if x.size(0) > 1 or tokens > MAX_TOKENS:
            return self.net.plan(x, x_lengths, conditions, length_scale, noise_scale_w)

        def step(x: Tensor, x_lengths: Tensor, length_scale: Any, noise_scale_w: Any, **conditions: Tensor) -> Plan:
            planned = self.net.plan(x, x_lengths, conditions, length_scale, noise_scale_w)
            parts = {name: part for name, part in planned._asdict().items() if name != "g"}
            return planned._replace(**{name: F.pad(part, (0, MAX_TOKENS - tokens)) for name, part in parts.items()})

        given = {"x_lengths": x_lengths, "length_scale": length_scale, "noise_scale_w": noise_scale_w, **conditions}
        return Plan(*self._run(("plan", tokens), step, x=F.pad(x, (0, tokens - x.size(1))), **given))

    def latent(self, planned: Plan, noise_scale: float, t_t: int) -> Results:
        """As `SynthesizerTrn.latent`. The results have frames beyond `t_t`, which are zero except in z_p."""
        frames = rounded_up(t_t, PAD_FRAMES)
        if planned.durations.shape != (1, MAX_TOKENS) or frames > MAX_FRAMES:
            return self.net.latent(planned, noise_scale, t_t)

        def step(noise_scale: Any, **given: Any) -> Results:
            return self.net.latent(Plan(**given), noise_scale, frames)

        return self._run(("latent", frames), step, noise_scale=noise_scale, **planned._asdict())

    def dec(self, z: Tensor, g: Tensor | None) -> Tensor:
        """As `decoders.Decoder`; z `[1, inter, t_t]` without padding, which would change the audio.

        The latent is decoded in two windows of one padded size, at its start and its end, which overlap by the
        decoder's context. A latent that is too short for two windows has a graph for its exact length.
        """
        frames, context, hop = z.size(2), self.net.dec.context, self.net.dec.hop
        if frames > MAX_FRAMES:
            return self.decoder(z, g)
        window = rounded_up(-(-frames // 2) + context, PAD_WINDOW)
        windows = z if window >= frames else torch.cat([z[:, :, :window], z[:, :, -window:]])
        (o,) = self._run(("dec", *windows.shape), lambda **given: (self.decoder(**given),), z=windows, g=g)
        if len(windows) == 1:
            return o
        seam = window - context
        return torch.cat([o[:1, :, : seam * hop], o[1:, :, (seam - frames + window) * hop :]], 2)

    def _run(self, key: tuple[Any, ...], step: Callable[..., Results], **given: Any) -> Results:
        """Return the results of a step by its graph. A missing one is captured; if that fails, no graphs are used."""
        if self.capture and key not in self.graphs:
            # The first capture of a process creates tensors of the random state, which later captures fill in. Made in
            # inference mode, they would fail in the captures of a training step.
            with torch.inference_mode(False), torch.no_grad():
                try:
                    inputs = {name: self._graph_input(value) for name, value in given.items() if value is not None}
                    self.graphs[key] = inputs, *self.capture(lambda: step(**given | inputs))
                except RuntimeError as error:
                    logger.warning("no CUDA graphs from now on, because one could not be captured: %s", error)
                    self.capture = None
                    self.graphs.clear()
        if key not in self.graphs:
            return step(**given)
        inputs, replay, results = self.graphs[key]
        for name, place in inputs.items():
            if isinstance(given[name], Tensor):
                place.copy_(given[name])
            else:
                place.fill_(given[name])
        replay()
        return tuple(None if result is None else result.clone() for result in results)

    def _graph_input(self, value: Tensor | float) -> Tensor:
        if isinstance(value, Tensor):
            return value.clone()
        return torch.full((), value, dtype=torch.float32, device=self.device)


class CudaCapture:
    """Captures CUDA graphs that share one pool of memory, and therefore one stream."""

    def __init__(self, device: torch.device):
        self.device = device
        self.stream = torch.cuda.Stream(device)
        self.pool = torch.cuda.graph_pool_handle()

    def __call__(self, run: Run) -> tuple[Callable[[], None], Results]:
        """Capture the kernels that `run` launches. Keeps the random state. Raises RuntimeError if that fails."""
        with torch.cuda.device(self.device), torch.random.fork_rng([self.device]):
            graph = torch.cuda.CUDAGraph()
            caller = torch.cuda.current_stream()
            self.stream.wait_stream(caller)
            try:
                with torch.cuda.stream(self.stream):
                    for _ in range(WARM_UP):
                        run()
                    with torch.cuda.graph(graph, self.pool, self.stream, capture_error_mode="thread_local"):
                        results = run()
            except RuntimeError:
                # an interrupted capture leaves the generator waiting for its end
                generator = torch.cuda.default_generators[self.device.index]
                generator.graphsafe_set_state(generator.clone_state())
                raise
            finally:
                caller.wait_stream(self.stream)
        return graph.replay, results
