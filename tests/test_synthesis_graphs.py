"""Synthesis by graphs of padded lengths says what the network says, at every length."""

import numpy as np
import pytest
import tiny_voices
import torch
from torch.overrides import TorchFunctionMode

import synthesis_graphs
from modules import remove_weight_norm
from synthesis import HalfDecoder, Voice
from synthesis_graphs import CudaCapture, GraphedNet

QUIET = {"noise_scale": 0.0, "noise_scale_w": 0.0, "pause": 0}
KINDS = [{"use_sdp": False}, {"use_sdp": True, "speakers": {"anna": 0, "bo": 1}}, {"flow": None}]
LENGTHS = (1, 2, 17, 18, 36, 37, 63, 64, 65, 130, 512, 513)
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Rerun:
    """In place of a capture: runs the function again at each replay and puts its results where the first ones are.

    As in a pool that graphs share, what any of them left before is lost.
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
    """Captures this many functions and no more."""

    def __init__(self, works):
        super().__init__()
        self.works = works

    def __call__(self, run):
        self.works -= 1
        if self.works < 0:
            raise RuntimeError("operation not permitted when stream is capturing")
        return super().__call__(run)


class OnDevice(TorchFunctionMode):
    """Refuses tensors made of the host's numbers; those of the meta device cannot be read to begin with."""

    FROM_HOST = torch.tensor, torch.as_tensor, torch.from_numpy, torch.Tensor.new_tensor

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func in self.FROM_HOST or (isinstance(result, torch.Tensor) and not result.is_meta):
            raise RuntimeError(f"{func} takes numbers of the host")
        return result


def voices(kind, device="cpu"):
    """The same voice without graphs and with them."""
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


@pytest.mark.parametrize("kind", KINDS, ids=["deterministic", "stochastic, two speakers", "plain flow"])
def test_padded_steps_say_what_the_network_says(kind):
    graphed = check_lengths(kind, "cpu", 1e-5)
    kinds = [key[0] for key in graphed.graphed.graphs]
    assert kinds.count("plan") <= synthesis_graphs.MOST_TOKENS // synthesis_graphs.PAD_TOKENS
    assert kinds.count("latent") <= synthesis_graphs.MOST_FRAMES // synthesis_graphs.PAD_FRAMES
    assert {"plan", "latent", "dec"} == set(kinds)


@pytest.mark.parametrize("frames", [1, 25, 26, 45, 58, 59, 64, 90, 129, 154, 282, 538, 2048, 2049])
def test_two_windows_make_the_audio_of_one(frames):
    conf = tiny_voices.settings()
    net = tiny_voices.network(conf)
    z = torch.randn(1, conf.model.inter_channels, frames)
    with torch.inference_mode():
        assert torch.allclose(GraphedNet(net, capture=Rerun()).dec(z, None), net.dec(z, None), atol=1e-6)


def test_a_seed_repeats_itself_whatever_was_captured_before():
    _, graphed = voices(KINDS[1])
    first, _, again = (graphed.speak(ids(n), "bo", seed=3).audio for n in (40, 90, 40))
    other = graphed.speak(ids(40), "bo", seed=4).audio
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_pieces_that_wait_for_their_turn_keep_their_speaker():
    _, graphed = voices(KINDS[1])
    expected = [graphed.speak(ids(30), name, **QUIET).audio for name in ("anna", "bo")]
    streams = [graphed.speak(ids(30), name, stream=True, **QUIET) for name in ("anna", "bo")]
    parts = [[], []]
    for chunks in zip(*streams):
        for part, chunk in zip(parts, chunks):
            part.append(chunk)
    for part, audio in zip(parts, expected):
        assert np.abs(np.concatenate(part) - audio[: sum(map(len, part))]).max() < 1e-5


def test_what_was_said_before_stays_as_it_was():
    _, graphed = voices(KINDS[1])
    net = graphed.graphed
    sid, zero = torch.tensor([0]), 0.0
    with torch.inference_mode():
        plans = [net.plan(torch.tensor([ids(n)]), torch.tensor([n]), sid, 1.0, zero) for n in (40, 30, 90, 35)]
        again = net.plan(torch.tensor([ids(40)]), torch.tensor([40]), sid, 1.0, zero)
        frames = int(again.durations.sum())
        latents = [net.latent(plan, zero, frames) for plan in (plans[0], plans[1], again)]
        audios = [net.dec(latent[0][:, :, :frames], again.g) for latent in latents]
    for first, last in ((plans[0], again), (latents[0], latents[-1]), (audios[:1], audios[-1:])):
        assert all(torch.equal(x, y) for x, y in zip(first, last))


@pytest.mark.parametrize("kind", KINDS[:2], ids=["one speaker", "two speakers"])
def test_half_precision_says_nearly_the_same(kind):
    voice, _ = voices(kind)
    full = [voice.speak(ids(40), speaker, **QUIET).audio for speaker in voice.speakers or [None]]
    voice.half = HalfDecoder(voice.net.dec)
    for speaker, expected in zip(voice.speakers or [None], full):
        spoken = voice.speak(ids(40), speaker, **QUIET).audio
        assert spoken.dtype == np.float32
        assert 0 < np.abs(spoken - expected).max() < 5e-3 * np.abs(expected).max()


def first_layer(dec):
    return dec.conv_pre.weight


def one_channel_of_the_last_block(dec):
    return dec.resblocks[-1].convs2[-1].weight[1]


@pytest.mark.parametrize("too_large", [first_layer, one_channel_of_the_last_block])
@pytest.mark.parametrize("graphs", [False, True])
def test_what_is_too_large_for_half_precision_is_decoded_in_full(graphs, too_large, caplog):
    voice, _ = voices(KINDS[1])
    too_large(voice.net.dec).data.mul_(1e6)
    voice.net.dec.conv_post.weight.data.mul_(1e-6)
    expected = voice.speak(ids(40), "bo", **QUIET).audio
    voice.half = HalfDecoder(voice.net.dec)
    voice.graphed = GraphedNet(voice.net, voice.half, Rerun()) if graphs else None
    for _ in range(2):
        assert np.allclose(voice.speak(ids(40), "bo", **QUIET).audio, expected, atol=1e-5)
    assert [record.name for record in caplog.records] == ["synthesis"] * 2
    assert 1e-3 < np.abs(expected).max() < 1


def test_what_no_precision_can_hold_is_not_laid_on_half_precision(caplog):
    voice, _ = voices(KINDS[0])
    voice.half = HalfDecoder(voice.net.dec)
    voice.net.dec.conv_pre.weight.data.fill_(torch.nan)
    voice.half.dec.conv_pre.weight.data.fill_(torch.nan)
    with pytest.raises(ValueError, match="its weights are broken"):
        voice.speak(ids(40), **QUIET)
    assert not caplog.records


@pytest.mark.parametrize("works", range(5))
def test_speech_goes_on_where_a_capture_fails(works, caplog):
    _, graphed = voices(KINDS[1])
    expected = [graphed.speak(ids(n), "bo", seed=3).audio for n in (40, 90)]
    graphed.graphed = GraphedNet(graphed.net, capture=Fails(works))
    for n, audio in zip((40, 90), expected):
        assert np.allclose(graphed.speak(ids(n), "bo", seed=3).audio, audio, atol=1e-6)
    assert not graphed.graphed.graphs
    assert [record.name for record in caplog.records] == ["synthesis_graphs"]


def test_an_error_that_is_not_of_the_capture_is_told():
    _, graphed = voices(KINDS[1])
    with pytest.raises(ValueError, match="give sid"), torch.inference_mode():
        graphed.graphed.plan(torch.tensor([ids(3)]), torch.tensor([3]), None, 1.0, 0.0)


@pytest.mark.parametrize(
    "predictor", [{"use_sdp": True}, {"use_sdp": False}, {"use_sdp": False, "use_duration_noise": True}]
)
@pytest.mark.parametrize("speakers", [0, 2])
@pytest.mark.parametrize("flow", tiny_voices.FLOWS)
def test_steps_stay_on_the_device(flow, speakers, predictor):
    net = remove_weight_norm(tiny_voices.network(tiny_voices.settings(flow, speakers, **predictor))).to("meta")
    one, scale = torch.zeros(1, dtype=torch.long, device="meta"), torch.zeros((), device="meta")
    with torch.no_grad(), OnDevice():
        planned = net.plan(one.expand(1, 20), one, one if speakers else None, scale, scale)
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
def test_steps_that_ask_the_host_are_noticed(step):
    with pytest.raises(RuntimeError), OnDevice():
        step(torch.zeros(3, device="meta"))


@on_gpu
@pytest.mark.parametrize("kind", KINDS, ids=["deterministic", "stochastic, two speakers", "plain flow"])
def test_graphs_say_what_the_network_says(kind):
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        check_lengths(kind, "cuda", 1e-4)


@on_gpu
@pytest.mark.parametrize("graphs", [False, True])
def test_a_gpu_decodes_in_half_precision(graphs):
    conf = tiny_voices.settings(**KINDS[1])
    half, full = (Voice(tiny_voices.network(conf).cuda(), conf, graphs=graphs, half=half) for half in (True, False))
    spoken, expected = (voice.speak(ids(90), "bo", **QUIET).audio for voice in (half, full))
    assert half.half and not full.half
    assert 0 < np.abs(spoken - expected).max() < 5e-3 * np.abs(expected).max()


@on_gpu
def test_a_seed_repeats_itself_by_graphs():
    _, graphed = voices(KINDS[1], "cuda")
    first, _, again = (graphed.speak(ids(n), "bo", seed=3).audio for n in (40, 90, 40))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, graphed.speak(ids(40), "bo", seed=4).audio)
    drawn = torch.randn(3, device="cuda")
    graphed.speak(ids(40), "bo", seed=3)
    assert not torch.equal(drawn, torch.randn(3, device="cuda"))


@on_gpu
def test_a_capture_that_fails_leaves_the_gpu_usable():
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
def test_speech_goes_on_where_a_capture_breaks_off(monkeypatch, caplog):
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
    assert [record.name for record in caplog.records].count("synthesis_graphs") == 1 and not graphed.graphed.graphs


@on_gpu
def test_training_captures_after_speech():
    _, graphed = voices(KINDS[1], "cuda")
    graphed.speak(ids(40), "bo", seed=3)
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    with torch.cuda.graph(graph, stream=stream):
        drawn = torch.randn(3, device="cuda")
    graph.replay()
    assert drawn.isfinite().all()
