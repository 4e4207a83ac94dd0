"""Synthesis by graphs of padded lengths says what the network says, at every length."""

import numpy as np
import pytest
import tiny_voices
import torch

import synthesis_graphs
from synthesis import Voice
from synthesis_graphs import GraphedNet

QUIET = {"noise_scale": 0.0, "noise_scale_w": 0.0, "pause": 0}
KINDS = [{"use_sdp": False}, {"use_sdp": True, "speakers": {"anna": 0, "bo": 1}}, {"flow": None}]
LENGTHS = (1, 2, 17, 18, 36, 37, 63, 64, 65, 130, 512, 513)
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def rerun(run):
    """In place of a capture: runs the function again at each replay and puts its results where the first ones are."""
    with torch.random.fork_rng([]):  # a capture leaves the random state as it was
        kept = run()

    def replay():
        for old, new in zip(kept, run()) if isinstance(kept, tuple) else [(kept, run())]:
            if old is not None:
                old.copy_(new)

    return replay, kept


def voices(kind, device="cpu"):
    """The same voice without graphs and with them."""
    conf = tiny_voices.settings(**kind)
    plain, graphed = (Voice(tiny_voices.network(conf).to(device), conf, graphs=graphs) for graphs in (False, True))
    if device == "cpu":
        assert plain.graphed is None and graphed.graphed is None
        graphed.graphed = GraphedNet(graphed.net, rerun)
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
    assert {"plan", "latent", "dec"} == set(kinds)


@pytest.mark.parametrize("frames", [1, 25, 26, 45, 58, 59, 64, 90, 129, 154, 282, 538, 2048, 2049])
def test_two_windows_make_the_audio_of_one(frames):
    conf = tiny_voices.settings()
    net = tiny_voices.network(conf)
    z = torch.randn(1, conf.model.inter_channels, frames)
    with torch.inference_mode():
        assert torch.allclose(GraphedNet(net, rerun).dec(z, None), net.dec(z, None), atol=1e-6)


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


@on_gpu
@pytest.mark.parametrize("kind", KINDS, ids=["deterministic", "stochastic, two speakers", "plain flow"])
def test_graphs_say_what_the_network_says(kind):
    with torch.backends.cudnn.flags(allow_tf32=False):
        check_lengths(kind, "cuda", 1e-4)


@on_gpu
def test_a_seed_repeats_itself_by_graphs():
    _, graphed = voices(KINDS[1], "cuda")
    first, _, again = (graphed.speak(ids(n), "bo", seed=3).audio for n in (40, 90, 40))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, graphed.speak(ids(40), "bo", seed=4).audio)
    drawn = torch.randn(3, device="cuda")
    graphed.speak(ids(40), "bo", seed=3)
    assert not torch.equal(drawn, torch.randn(3, device="cuda"))
