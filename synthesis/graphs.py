"""Synthesis on a GPU in few launches: the network's steps for one utterance as CUDA graphs, one for each padded length.

A sentence is thousands of small kernels, which the host launches more slowly than the GPU runs them. `GraphedNet` has
`plan`, `latent` and `dec` of the network it is made from, and returns what they return.
"""

import logging
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from commons import rounded_up
from models import Plan, SynthesizerTrn

logger = logging.getLogger(__name__)

Results = tuple[Tensor | None, ...]
Run = Callable[[], Results]
PAD_TOKENS, MOST_TOKENS = 64, 512
PAD_FRAMES, MOST_FRAMES = 128, 2048
PAD_WINDOW = 32  # frames
WARM_UP = 2  # runs before a capture, in which libraries choose their kernels


class GraphedNet:
    """Speaks one utterance at a time; what is longer than its graphs, or not alone, takes the network's own way.

    After a capture that fails, all takes its padded steps without graphs, which a seed does not notice.

    Args:
        dec: speaks in place of the network's own decoder.
        capture: makes of a function one that runs it again, and the results, which stay in place. Whatever runs
            again may overwrite the results of all others.
    """

    def __init__(
        self,
        net: SynthesizerTrn,
        dec: nn.Module | None = None,
        capture: Callable[[Run], tuple[Callable[[], None], Results]] | None = None,
    ):
        self.net = net
        self.decoder = dec or net.dec
        self.device = net.enc_p.emb.weight.device
        self.capture = capture or CudaCapture(self.device)
        self.graphs: dict[tuple, tuple[dict[str, Tensor], Callable[[], None], Results]] = {}

    def plan(self, x: Tensor, x_lengths: Tensor, sid: Tensor | None, length_scale: float, noise_scale_w: float) -> Plan:
        """As `SynthesizerTrn.plan`; x `[1, t_s]`. What the plan has of tokens is padded to `MOST_TOKENS`."""
        tokens = rounded_up(x.size(1), PAD_TOKENS)
        if x.size(0) > 1 or tokens > MOST_TOKENS:
            return self.net.plan(x, x_lengths, sid, length_scale, noise_scale_w)

        def step(**given):
            planned = self.net.plan(**given)
            rest = (0, MOST_TOKENS - tokens)
            return Plan(*(F.pad(part, rest) if part is not planned.g else part for part in planned))

        x = F.pad(x, (0, tokens - x.size(1)))
        scales = {"length_scale": length_scale, "noise_scale_w": noise_scale_w}
        return Plan(*self._run(("plan", tokens), step, x=x, x_lengths=x_lengths, sid=sid, **scales))

    def latent(self, planned: Plan, noise_scale: float, t_t: int) -> Results:
        """As `SynthesizerTrn.latent`; what it returns has frames beyond `t_t`, all zero but those of z_p."""
        frames = rounded_up(t_t, PAD_FRAMES)
        if planned.durations.shape != (1, MOST_TOKENS) or frames > MOST_FRAMES:
            return self.net.latent(planned, noise_scale, t_t)

        def step(noise_scale, **given):
            return self.net.latent(Plan(**given), noise_scale, frames)

        return self._run(("latent", frames), step, noise_scale=noise_scale, **planned._asdict())

    def dec(self, z: Tensor, g: Tensor | None) -> Tensor:
        """As the decoder; z `[1, inter, t_t]`, without padding, which it would hear.

        Two windows of one size, at the start and at the end, overlap by what they hear beyond their edges. What is too
        short for two has a graph for its very length.
        """
        frames, context = z.size(2), self.net.dec.context
        if frames > MOST_FRAMES:
            return self.decoder(z, g)
        window = rounded_up(-(-frames // 2) + context, PAD_WINDOW)
        windows = z if window >= frames else torch.cat([z[:, :, :window], z[:, :, -window:]])
        (o,) = self._run(("dec", *windows.shape), lambda **given: (self.decoder(**given),), x=windows, g=g)
        if len(windows) == 1:
            return o
        hop = o.size(2) // window
        seam = window - context
        return torch.cat([o[:1, :, : seam * hop], o[1:, :, (seam - frames + window) * hop :]], 2)

    def _run(self, key: tuple, step: Callable[..., Results], **given: Tensor | float | None) -> Results:
        """A step's results, by its graph, which is captured if it is the first time."""
        if self.capture and key not in self.graphs:
            self._add(key, step, given)
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

    def _add(self, key: tuple, step: Callable[..., Results], given: dict[str, Tensor | float | None]) -> None:
        """Capture a step, or give up graphs if that fails."""
        # tensors of the random state are made at the first capture of a process and filled in at every later one,
        # which those of inference mode would not allow a training step
        with torch.inference_mode(False), torch.no_grad():
            try:
                inputs = {name: self._place(value) for name, value in given.items() if value is not None}
                self.graphs[key] = inputs, *self.capture(lambda: step(**given | inputs))
            except RuntimeError as error:
                logger.warning("no CUDA graphs from now on, because one could not be captured: %s", error)
                self.capture = None
                self.graphs.clear()

    def _place(self, value: Tensor | float) -> Tensor:
        """Where a graph reads an input."""
        if isinstance(value, Tensor):
            return value.clone()
        return torch.full((), value, dtype=torch.float32, device=self.device)


class CudaCapture:
    """Captures CUDA graphs, which share their memory: one pool, and one stream, since a pool keeps streams apart."""

    def __init__(self, device: torch.device):
        self.device = device
        self.stream = torch.cuda.Stream(device)
        self.pool = torch.cuda.graph_pool_handle()

    def __call__(self, run: Run) -> tuple[Callable[[], None], Results]:
        """Capture what `run` launches. The random state is left as it was, so that a first call draws as later ones.

        Raises:
            RuntimeError: the graph cannot be captured.
        """
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
                # a capture that breaks off leaves the generator's state waiting for its end
                generator = torch.cuda.default_generators[self.device.index]
                generator.graphsafe_set_state(generator.clone_state())
                raise
            finally:
                caller.wait_stream(self.stream)
        return graph.replay, results
