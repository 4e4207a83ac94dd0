"""Synthesis with graphs of padded lengths equals the network at every length."""

from contextlib import nullcontext

import numpy as np
import pytest
import tiny
import tiny_voices
import torch
from torch.overrides import TorchFunctionMode

from decoders import DECODERS
from modules import remove_weight_norm
from synthesis import Voice, graphs
from synthesis.graphs import CudaCapture, GraphedNet

QUIET = {"noise_scale": 0.0, "noise_scale_w": 0.0, "pause": 0}
KINDS = [
    {"use_sdp": False},
    {"use_sdp": True, "speakers": {"anna": 0, "bo": 1}},
    {"flow": None},
    {"decoder": "vocos", "speakers": {"anna": 0, "bo": 1}},
]
NAMES = ["deterministic", "stochastic, two speakers", "plain flow", "vocos, two speakers"]
LENGTHS = (1, 2, 17, 18, 36, 37, 63, 64, 65, 130, 512, 513)
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Rerun:
    """A capture that runs the function again at each replay and copies its results to the first ones.

    As in a pool of memory that graphs share, each run destroys the results of all others.
    """

    def __init__(self):
        self.kept = []

    def __call__(self, run):
        assert not torch.is_inference_mode_enabled()
        with torch.random.fork_rng([]):  # a capture leaves the random state as it was
            results = run()
        self.kept += [result for result in results if result is not None]
        self.spoil()

        def replay():
            self.spoil()
            for old, new in zip(results, run()):
                if old is not None:
                    old.copy_(new)

        return replay, results

    def spoil(self):
        for result in self.kept:
            result.fill_(torch.nan)


class Fails(Rerun):
    """A capture that works for this many functions and fails for the next."""

    def __init__(self, works):
        super().__init__()
        self.works = works

    def __call__(self, run):
        self.works -= 1
        if self.works < 0:
            raise RuntimeError("operation not permitted when stream is capturing")
        return super().__call__(run)


class OnDevice(TorchFunctionMode):
    """Refuses tensors that are made from numbers of the host; tensors on the meta device cannot be read anyway."""

    FROM_HOST = torch.tensor, torch.as_tensor, torch.from_numpy, torch.Tensor.new_tensor

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func in self.FROM_HOST or (isinstance(result, torch.Tensor) and not result.is_meta):
            raise RuntimeError(f"{func} takes numbers of the host")
        return result


def voices(kind, device="cpu"):
    """Return the same voice without graphs and with them."""
    conf = tiny_voices.settings(**kind)
    networks = (tiny_voices.network(conf).to(device) for _ in range(2))
    plain, graphed = (Voice(net, conf, graphs=graphs, half=False) for net, graphs in zip(networks, (False, True)))
    if device == "cpu":
        assert plain.graphed is None and graphed.graphed is None
        graphed.graphed = GraphedNet(graphed.net, capture=Rerun())
    return plain, graphed


def ids(n):
    return [1 + i * 7 % 170 for i in range(n)]


def check_lengths(kind, device, tolerance):
    plain, graphed = voices(kind, device)
    for n in (*LENGTHS, 17):
        for speaker in plain.speakers or [None]:
            expected, spoken = (voice.speak(ids(n), speaker, **QUIET) for voice in (plain, graphed))
            assert np.array_equal(expected.durations, spoken.durations)
            assert np.abs(expected.audio - spoken.audio).max() <= tolerance, n
            parts = list(graphed.speak(ids(n), speaker, stream=True, **QUIET))
            assert np.abs(np.concatenate(parts) - expected.audio).max() <= tolerance, n
    slow = [voice.speak(ids(40), speaker, length_scale=2.0, **QUIET) for voice in (plain, graphed)]
    assert np.array_equal(slow[0].durations, slow[1].durations)
    return graphed


@pytest.mark.parametrize("kind", tiny.mostly_slow(KINDS, KINDS[0]), ids=NAMES)
def test_padded_steps_equal_the_network(kind):
    graphed = check_lengths(kind, "cpu", 1e-5)
    kinds = [key[0] for key in graphed.graphed.graphs]
    assert kinds.count("plan") <= graphs.MAX_TOKENS // graphs.PAD_TOKENS
    assert kinds.count("latent") <= graphs.MAX_FRAMES // graphs.PAD_FRAMES
    assert {"plan", "latent", "dec"} == set(kinds)


LENGTHS = [1, 25, 26, 45, 58, 59, 64, 90, 129, 154, 282, 538, 2048, 2049]


@pytest.mark.parametrize("frames", tiny.mostly_slow(LENGTHS, 1, 26, 59, 154, 2049))
@pytest.mark.parametrize("decoder", DECODERS)
def test_decoding_in_two_windows_equals_decoding_in_one(frames, decoder):
    conf = tiny_voices.settings(**tiny.DECODERS[decoder])
    net = tiny_voices.network(conf)
    with torch.inference_mode():
        z = net.dec.excite(torch.randn(1, conf.model.inter_channels, frames), torch.ones(1, 1, frames))
        assert torch.allclose(GraphedNet(net, capture=Rerun()).dec(z, None), net.dec(z, None), atol=1e-6)


def test_a_seed_gives_the_same_audio_whatever_was_captured_before():
    _, graphed = voices(KINDS[1])
    first, _, again = (graphed.speak(ids(n), "bo", seed=3).audio for n in (40, 90, 40))
    other = graphed.speak(ids(40), "bo", seed=4).audio
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_interleaved_streams_keep_their_speakers():
    _, graphed = voices(KINDS[1])
    expected = [graphed.speak(ids(30), name, **QUIET).audio for name in ("anna", "bo")]
    streams = [graphed.speak(ids(30), name, stream=True, **QUIET) for name in ("anna", "bo")]
    parts = [[], []]
    for chunks in zip(*streams):
        for part, chunk in zip(parts, chunks):
            part.append(chunk)
    for part, audio in zip(parts, expected):
        assert np.abs(np.concatenate(part) - audio[: sum(map(len, part))]).max() < 1e-5


def test_later_calls_do_not_change_earlier_results():
    _, graphed = voices(KINDS[1])
    net = graphed.graphed
    speaker, zero = {"sid": torch.tensor([0])}, 0.0
    with torch.inference_mode():
        plans = [net.plan(torch.tensor([ids(n)]), torch.tensor([n]), speaker, 1.0, zero) for n in (40, 30, 90, 35)]
        again = net.plan(torch.tensor([ids(40)]), torch.tensor([40]), speaker, 1.0, zero)
        frames = int(again.durations.sum())
        latents = [net.latent(plan, zero, frames) for plan in (plans[0], plans[1], again)]
        audios = [net.dec(latent[0][:, :, :frames], again.g) for latent in latents]
    for first, last in ((plans[0], again), (latents[0], latents[-1]), (audios[:1], audios[-1:])):
        assert all(torch.equal(x, y) for x, y in zip(first, last))


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_half_precision_gives_nearly_the_same_audio(kind):
    voice, _ = voices(kind)
    full = [voice.speak(ids(40), speaker, **QUIET).audio for speaker in voice.speakers or [None]]
    voice.half = voice.net.dec.half_copy()
    for speaker, expected in zip(voice.speakers or [None], full):
        spoken = voice.speak(ids(40), speaker, **QUIET).audio
        assert spoken.dtype == np.float32
        assert 0 < np.abs(spoken - expected).max() < 5e-3 * np.abs(expected).max()


def overflow_everywhere(voice):
    """Scale the first convolution until its output exceeds fp16."""
    voice.net.dec.conv_pre.weight.mul_(4e5)
    voice.net.dec.conv_post.weight.div_(4e5)


def overflow_in_few_samples(voice):
    """Shift and scale one channel of the last block until its highest samples alone exceed fp16."""
    dec = voice.net.dec
    block, peaks = dec.resblocks[-1].convs2[-1], []
    dec.conv_post.weight[:, 1].mul_(1e-5)
    block.weight[1].mul_(1e4)
    hook = dec.conv_post.register_forward_pre_hook(lambda _, inputs: peaks.append(inputs[0][:, 1].max().item()))
    voice.speak(ids(40), "bo", **QUIET)
    hook.remove()
    block.weight[1].mul_(6e3 / max(peaks))
    block.bias[1] = 6e4


@pytest.mark.parametrize("overflow", [overflow_everywhere, overflow_in_few_samples])
@pytest.mark.parametrize("graphs", [False, True])
def test_audio_is_decoded_again_in_fp32_where_fp16_overflows(graphs, overflow, caplog):
    voice, _ = voices(KINDS[1])
    overflow(voice)
    expected = voice.speak(ids(40), "bo", **QUIET).audio
    voice.half = voice.net.dec.half_copy()
    assert all(parameter.isfinite().all() for parameter in voice.half.parameters())  # only activations overflow
    voice.graphed = GraphedNet(voice.net, voice.half, Rerun()) if graphs else None
    for _ in range(2):
        assert np.allclose(voice.speak(ids(40), "bo", **QUIET).audio, expected, atol=1e-5)
    assert [record.message.split(",")[0] for record in caplog.records] == ["fp16 overflowed"] * 2
    assert 1e-3 < np.abs(expected).max() < 1


def test_broken_weights_are_not_reported_as_an_overflow_of_fp16(caplog):
    voice, _ = voices(KINDS[0])
    for parameter in voice.net.dec.parameters():
        parameter.fill_(torch.nan)
    voice.half = voice.net.dec.half_copy()
    with pytest.raises(ValueError, match="weights of the network are broken"):
        voice.speak(ids(40), **QUIET)
    assert not caplog.records


@pytest.mark.parametrize("works", range(5))
def test_synthesis_continues_without_graphs_after_a_capture_fails(works, caplog):
    _, graphed = voices(KINDS[1])
    expected = [graphed.speak(ids(n), "bo", seed=3).audio for n in (40, 90)]
    graphed.graphed = GraphedNet(graphed.net, capture=Fails(works))
    for n, audio in zip((40, 90), expected):
        assert np.allclose(graphed.speak(ids(n), "bo", seed=3).audio, audio, atol=1e-6)
    assert not graphed.graphed.graphs
    assert [record.name for record in caplog.records] == ["synthesis.graphs"]


def test_errors_that_do_not_come_from_the_capture_are_raised():
    _, graphed = voices(KINDS[1])
    with pytest.raises(ValueError, match="give sid"), torch.inference_mode():
        graphed.graphed.plan(torch.tensor([ids(3)]), torch.tensor([3]), {}, 1.0, 0.0)


@pytest.mark.parametrize(
    "predictor", [{"use_sdp": True}, {"use_sdp": False}, {"use_sdp": False, "use_duration_noise": True}]
)
@pytest.mark.parametrize("speakers", [0, 2])
@pytest.mark.parametrize("flow", tiny_voices.FLOWS)
def test_steps_do_not_synchronize_with_the_host(flow, speakers, predictor):
    check_steps(tiny_voices.settings(flow, speakers, **predictor))


@pytest.mark.parametrize("speakers", [0, 2])
@pytest.mark.parametrize("decoder", DECODERS)
def test_decoders_do_not_synchronize_with_the_host(decoder, speakers):
    check_steps(tiny_voices.settings(speakers=speakers, **tiny.DECODERS[decoder]))


def check_steps(conf):
    """Raise RuntimeError if a step of the network of a config synchronizes with the host."""
    speakers = conf.data.n_speakers
    net = remove_weight_norm(tiny_voices.network(conf)).to("meta")
    one, scale = torch.zeros(1, dtype=torch.long, device="meta"), torch.zeros((), device="meta")
    for context in (nullcontext(), OnDevice()):  # first, as before a capture, tables are made that later calls use
        with torch.no_grad(), context:
            planned = net.plan(one.expand(1, 20), one, {"sid": one} if speakers else {}, scale, scale)
            z, *_ = net.latent(planned, scale, 70)
            net.dec(z, planned.g)


@pytest.mark.parametrize(
    "step",
    [
        lambda x: x.sum().item(),
        lambda x: x if x.any() else -x,
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x.cpu(),
        lambda x: x.tolist(),
        lambda x: x * torch.tensor([2.0], device=x.device),
        lambda x: x * torch.tensor(2.0),
        lambda x: x * torch.ones(1).to(x.device),
        lambda x: x.new_tensor([1.0]),
        lambda x: torch.arange(x.max(), device=x.device),
    ],
)
def test_synchronization_with_the_host_is_detected(step):
    with pytest.raises(RuntimeError), OnDevice():
        step(torch.zeros(3, device="meta"))


@on_gpu
@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_graphs_equal_the_network(kind):
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        check_lengths(kind, "cuda", 1e-4)


@on_gpu
@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("decoder", DECODERS)
def test_a_gpu_decodes_in_half_precision(graphs, decoder):
    conf = tiny_voices.settings(**KINDS[1], **tiny.DECODERS[decoder])
    half, full = (Voice(tiny_voices.network(conf).cuda(), conf, graphs=graphs, half=half) for half in (True, False))
    spoken, expected = (voice.speak(ids(90), "bo", **QUIET).audio for voice in (half, full))
    assert half.half and not full.half
    assert 0 < np.abs(spoken - expected).max() < 5e-3 * np.abs(expected).max()


@on_gpu
def test_a_seed_gives_the_same_audio_with_graphs():
    _, graphed = voices(KINDS[1], "cuda")
    first, _, again = (graphed.speak(ids(n), "bo", seed=3).audio for n in (40, 90, 40))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, graphed.speak(ids(40), "bo", seed=4).audio)
    drawn = torch.randn(3, device="cuda")
    graphed.speak(ids(40), "bo", seed=3)
    assert not torch.equal(drawn, torch.randn(3, device="cuda"))


@on_gpu
def test_the_gpu_is_usable_after_a_failed_capture():
    capture = CudaCapture(torch.device("cuda", 0))
    state = torch.cuda.get_rng_state()
    with pytest.raises(RuntimeError):
        capture(lambda: (torch.randn(3, device="cuda"), torch.cuda.synchronize()))
    assert torch.equal(state, torch.cuda.get_rng_state())
    assert torch.randn(3, device="cuda").isfinite().all()
    replay, (drawn,) = CudaCapture(torch.device("cuda", 0))(lambda: (torch.randn(3, device="cuda"),))
    replay()
    first = drawn.clone()
    replay()
    assert not torch.equal(first, drawn)


@on_gpu
def test_synthesis_continues_after_an_interrupted_capture(monkeypatch, caplog):
    plain, graphed = voices(KINDS[1], "cuda")
    latent = graphed.net.latent

    def waiting(*args):
        torch.cuda.current_stream().synchronize()
        return latent(*args)

    monkeypatch.setattr(graphed.net, "latent", waiting)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for n in (40, 90):
            expected, spoken = (voice.speak(ids(n), "bo", **QUIET) for voice in (plain, graphed))
            assert np.abs(expected.audio - spoken.audio).max() <= 1e-4
    assert [record.name for record in caplog.records].count("synthesis.graphs") == 1 and not graphed.graphed.graphs


@on_gpu
def test_a_training_step_can_be_captured_after_synthesis():
    _, graphed = voices(KINDS[1], "cuda")
    graphed.speak(ids(40), "bo", seed=3)
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    with torch.cuda.graph(graph, stream=stream):
        drawn = torch.randn(3, device="cuda")
    graph.replay()
    assert drawn.isfinite().all()
