"""A checkpoint becomes a voice; the voice says what the network says, repeatably, and refuses what it cannot say."""

import threading
import warnings

import numpy as np
import pytest
import soundfile
import tiny_voices
import torch

import checkpoint
import commons
import config
import sentences
import speech
from commons import intersperse
from discriminators import MultiPeriodDiscriminator
from models import SynthesizerTrn
from synthesis import Voice
from text import text_to_sequence

QUIET = {"noise_scale": 0.0, "noise_scale_w": 0.0}
TABLE = {"anna": 0, "bo": 1, "carla": 2}
TEXT = "A first sentence. And then a second one, a little longer!"


def build(**options):
    conf = tiny_voices.settings(**options)
    return Voice(tiny_voices.network(conf), conf)


@pytest.fixture(scope="module")
def single():
    return build()


@pytest.fixture(scope="module")
def many():
    return build(speakers=TABLE, use_sdp=True)


def test_tokens_of_frames_are_those_of_the_path():
    durations = torch.tensor([[2.0, 0.0, 3.0, 1.0], [0.0, 4.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    token, spoken = commons.tokens_of_frames(durations)
    assert spoken.sum(1).tolist() == [6, 4, 1]
    path = commons.generate_path(durations.unsqueeze(1), spoken[:, None, :, None] * torch.ones(3, 1, 1, 4))
    assert torch.equal(token[:2] * spoken[:2], path[:2, 0].argmax(2) * spoken[:2])


def test_speech_tells_which_token_speaks_when(single):
    spoken = single.speak("Hello there", seed=1)
    assert spoken.audio.dtype == np.float32 and spoken.audio.ndim == 1
    assert spoken.tokens == text_to_sequence("Hello there", ["basic_cleaners"])
    assert len(spoken.durations) == len(spoken.tokens) == 11
    assert len(spoken.audio) == spoken.durations.sum() * 64 and spoken.sampling_rate == 8000
    assert spoken.alignment.shape == (11, spoken.durations.sum())
    assert (spoken.alignment.sum(0) == 1).all()
    assert np.array_equal(spoken.alignment.sum(1), spoken.durations)
    assert spoken.sentences[0].text == "Hello there" and spoken.sentences[0].symbols == "hello there"
    assert not any(hasattr(module, "parametrizations") for module in single.net.modules())


def test_blanks_as_the_config_says():
    voice = build(data={"add_blank": True})
    assert voice.speak("hello").tokens == intersperse(text_to_sequence("hello", ["basic_cleaners"]), 0)


def test_long_text_is_spoken_by_sentences_with_pauses(single):
    spoken = single.speak(TEXT, **QUIET, pause=0.5)
    first, second = spoken.sentences
    assert [first.text, second.text] == [piece.text for piece in sentences.split(TEXT)]
    assert first.start == 0 and second.start == len(first.audio) + 4000
    assert not spoken.audio[len(first.audio) : second.start].any()
    assert np.array_equal(spoken.audio[second.start :], second.audio)
    alone = single.speak(second.text, **QUIET)
    assert np.array_equal(alone.audio, second.audio)
    assert len(single.speak(TEXT, **QUIET, pause=0).audio) == len(spoken.audio) - 4000
    endless = single.speak("word " * 200, **QUIET)
    assert len(endless.sentences) > 4 and len(endless.audio) == endless.durations.sum() * 64  # no pause in a sentence


STREAMS = {
    "resblock 1": {"upsample_rates": [8, 2, 4], "upsample_kernel_sizes": [16, 4, 8], "upsample_initial_channel": 32},
    "resblock 2": {"resblock": "2", "resblock_kernel_sizes": [3, 7], "resblock_dilation_sizes": [[1, 2], [2, 6]]},
    "many speakers, stochastic": {"speakers": TABLE, "use_sdp": True, "resblock_kernel_sizes": [11]},
}


@pytest.mark.parametrize("case", STREAMS)
def test_a_stream_is_the_speech_in_parts(case, monkeypatch):
    monkeypatch.setattr(speech, "FIRST_CHUNK", 4)
    monkeypatch.setattr(speech, "LARGEST_CHUNK", 16)
    voice = build(**STREAMS[case])
    speaker = "bo" if voice.data.n_speakers else None
    state = torch.random.get_rng_state()
    whole = voice.speak(TEXT, speaker, seed=3)
    done = []
    parts = list(voice.speak(TEXT, speaker, seed=3, stream=True, progress=lambda *at: done.append(at)))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert len(parts) > 20 and len(parts[0]) == 4 * 64
    np.testing.assert_allclose(np.concatenate(parts), whole.audio, atol=1e-5)
    assert done == [(1, 2), (2, 2)]


@pytest.mark.parametrize("case", STREAMS)
def test_context_is_what_the_audio_of_a_frame_depends_on(case):
    dec = build(**STREAMS[case]).net.dec.double()
    z = torch.randn(1, 8, 61, dtype=torch.double, generator=torch.Generator().manual_seed(0)).requires_grad_()
    audio = dec(z, None if not hasattr(dec, "cond") else torch.zeros(1, 8, 1).double())
    hop = audio.size(2) // 61
    (grad,) = torch.autograd.grad(audio[0, 0, 30 * hop : 31 * hop].square().sum(), z)
    heard = grad.abs().sum((0, 1)).nonzero().flatten().tolist()
    assert (30 - heard[0], heard[-1] - 30) == (dec.context, dec.context)


def test_others_may_speak_and_draw_between_the_parts_of_a_stream(many):
    expected = many.speak(TEXT, 1, seed=3).audio
    parts = []
    for part in many.speak(TEXT, 1, seed=3, stream=True):
        parts.append(part)
        torch.randn(7)
        many.speak("Hi.", 0, seed=9)
    np.testing.assert_allclose(np.concatenate(parts), expected, atol=1e-5)


def test_a_stream_refuses_before_it_begins(single):
    with pytest.raises(ValueError, match="empty"):
        single.speak(" ", stream=True)
    with pytest.raises(ValueError, match="cannot be normalised"):
        single.speak("Hi.", stream=True, normalize=True)


def test_timings_are_those_of_the_durations(single):
    spoken = single.speak("Hello you. Me too!", **QUIET, pause=0.5)
    first, second = spoken.timings()
    assert (first["text"], first["start"]) == ("Hello you.", 0)
    assert first["end"] == pytest.approx(len(spoken.sentences[0].audio) / 8000, abs=1e-4)
    assert second["start"] == pytest.approx(first["end"] + 0.5, abs=1e-4)
    assert [word["symbols"] for word in first["words"]] == ["hello", "you."]
    assert "".join(token["symbol"] for token in first["tokens"]) == "hello you."
    lasting = [round((token["end"] - token["start"]) * 8000 / 64) for token in first["tokens"]]
    assert lasting == spoken.sentences[0].durations.tolist()
    assert first["words"][1]["start"] == first["tokens"][6]["start"] and first["words"][1]["end"] == first["end"]
    with_blanks = build(data={"add_blank": True}).speak("hello you").timings()[0]
    assert [word["symbols"] for word in with_blanks["words"]] == ["hello", "you"]


def test_normalised_audio_peaks_at_minus_one_dbfs(single):
    plain, loud = (single.speak(TEXT, **QUIET, normalize=normalize) for normalize in (False, True))
    assert np.abs(loud.audio).max() == pytest.approx(10 ** (-1 / 20), abs=1e-6)
    factor = np.abs(loud.audio).max() / np.abs(plain.audio).max()
    np.testing.assert_allclose(loud.audio, plain.audio * factor, atol=1e-6)
    assert np.array_equal(loud.audio[loud.sentences[1].start :], loud.sentences[1].audio)


def test_short_and_strange_text(single):
    assert len(single.speak("a").audio) > 0
    assert [s.text for s in single.speak("--- ! Yes. ...").sentences] == ["Yes."]
    for text, message in [("", "empty"), (" \n\n ", "empty"), ("?!... ,", "'\\?!... ,' can be pron"), ("_", "can be")]:
        with pytest.raises(ValueError, match=message):
            single.speak(text)
    with warnings.catch_warnings(), pytest.raises(ValueError, match="nothing in the text '你好' can be pronounced"):
        warnings.simplefilter("error")
        single.speak("你好")


def test_phonemes_and_ids_go_past_the_cleaners():
    voice = build(data={"text_cleaners": ["no_such_cleaner"]})
    with pytest.raises(ValueError, match="there is no text cleaner"):
        voice.speak("hello")
    spoken = voice.speak("həlˈoʊ. jˈɛs", **QUIET, phonemes=True)
    assert [s.symbols for s in spoken.sentences] == ["həlˈoʊ.", "jˈɛs"]
    again = voice.speak(spoken.sentences[1].tokens, **QUIET)
    assert np.array_equal(again.audio, spoken.sentences[1].audio)
    for ids, message in [([178], "no token 178"), ([-1], "no token -1"), ([], "no tokens")]:
        with pytest.raises(ValueError, match=message):
            voice.speak(ids)


def test_a_seed_decides_the_audio_and_disturbs_nobody(many):
    def say(seed):
        return many.speak(TEXT, "bo", seed=seed).audio

    first = say(5)
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    assert np.array_equal(say(5), first)
    assert torch.equal(torch.random.get_rng_state(), state)
    other = say(6)
    assert other.shape != first.shape or not np.array_equal(other, first)
    free = [many.speak("Hello.", 0).audio for _ in range(2)]
    assert free[0].shape != free[1].shape or not np.array_equal(*free)
    with pytest.raises(ValueError, match="seed is -1"):
        say(-1)


def test_threads_get_their_own_audio(many):
    texts = ["One text.", "And another, which is longer.", "A third."] * 3
    expected = [many.speak(text, 1, seed=3).audio for text in texts]
    spoken = [None] * len(texts)

    def work(i):
        spoken[i] = many.speak(texts[i], 1, seed=3).audio

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(texts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(a, b) for a, b in zip(spoken, expected))


@pytest.mark.parametrize("options", [{}, {"flow": "fft", "speakers": TABLE, "use_sdp": True}, {"flow": "pre_conv2"}])
def test_a_batch_says_what_each_line_says_alone(options):
    voice = build(**options)
    speaker = "carla" if voice.data.n_speakers else None
    lines = [TEXT, "Short.", "A line in the middle, of middle length."]
    batch = voice.speak_batch(lines, speaker, **QUIET, batch=3)
    for line, spoken in zip(lines, batch):
        alone = voice.speak(line, speaker, **QUIET)
        assert np.array_equal(spoken.durations, alone.durations)
        np.testing.assert_allclose(spoken.audio, alone.audio, atol=1e-5)
    one, two = (voice.speak_batch(lines, speaker, seed=1)[0].audio for _ in range(2))
    assert np.array_equal(one, two)
    assert voice.speak_batch([], speaker) == []


def test_speakers_by_name_and_id(many, single):
    assert many.speakers == TABLE
    by_name, by_id, by_text = (many.speak("Hi.", s, **QUIET).audio for s in ("bo", 1, "1"))
    assert np.array_equal(by_name, by_id) and np.array_equal(by_name, by_text)
    other = many.speak("Hi.", "anna", **QUIET).audio
    assert other.shape != by_id.shape or not np.array_equal(other, by_id)
    for speaker, message in [
        ("carl", "no speaker 'carl'; did you mean carla\\? Choices: anna, bo, carla"),
        (3, "no speaker 3; Choices"),
        (-1, "no speaker -1"),
        (None, "choose one of anna, bo, carla"),
    ]:
        with pytest.raises(ValueError, match=message):
            many.speak("Hi.", speaker)
    with pytest.raises(ValueError, match="single voice"):
        single.speak("Hi.", "anna")
    unnamed = build(speakers=30)
    assert unnamed.speakers == {str(i): i for i in range(30)}
    with pytest.raises(ValueError, match=r"18, 19 \.\.\. \(30 in all\)"):
        unnamed.speak("Hi.", 30)


def test_numeric_names_are_names_before_they_are_ids():
    voice = build(speakers={"1": 0, "0": 1})
    assert voice.speaker_id("1") == 0 and voice.speaker_id(1) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise_scale": -1}, "noise_scale is -1"),
        ({"noise_scale_w": float("nan")}, "noise_scale_w is nan"),
        ({"length_scale": 0}, "length_scale is 0"),
        ({"length_scale": 99}, "asks for .* seconds"),
        ({"pause": -1}, "pause is -1"),
    ],
)
def test_scales_out_of_range(single, options, message):
    with pytest.raises(ValueError, match=message):
        single.speak("Hello there.", **options)


def test_longer_scales_speak_longer(single):
    once, twice = (single.speak(TEXT, length_scale=scale, **QUIET).durations.sum() for scale in (1.0, 2.0))
    assert 1.7 < twice / once < 2.1


def test_an_untrained_or_broken_network_is_refused():
    conf = tiny_voices.settings()
    hasty = Voice(tiny_voices.network(conf, frames=1e6), conf)
    with pytest.raises(ValueError, match="hardly trained"):
        hasty.speak("Hello.")
    broken = Voice(tiny_voices.network(conf), conf)
    broken.net.dec.conv_post.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="NaN or infinity"):
        broken.speak("Hello.")


@pytest.mark.parametrize("mel", [True, False])
def test_conversion_is_the_networks(mel, tmp_path):
    data = {"use_mel_posterior_encoder": mel}
    voice = build(speakers=TABLE, data=data, use_mel_posterior_encoder=mel)
    samples = (0.3 * np.sin(np.arange(8000) / 7)).astype(np.float32)
    converted = voice.convert(samples, "anna", 2, seed=1)
    assert converted.dtype == np.float32 and converted.shape == (8000 // 64 * 64,)
    assert np.array_equal(converted, voice.convert(samples, 0, "carla", seed=1))
    assert not np.array_equal(converted, voice.convert(samples, 0, 1, seed=1))
    spec = voice.posterior_input(samples)
    assert spec.shape == (1, 20 if mel else 129, 125)
    with torch.random.fork_rng([]), torch.no_grad():
        torch.manual_seed(1)
        ids = torch.tensor([0]), torch.tensor([2])
        expected = voice.net.voice_conversion(spec, torch.tensor([125]), *ids)[0]
    np.testing.assert_allclose(converted, expected[0, 0].numpy(), atol=1e-5)

    soundfile.write(tmp_path / "in.wav", np.stack([samples, samples], 1), 16000, "FLOAT")
    assert len(voice.convert(tmp_path / "in.wav", 0, 1)) == len(voice.convert(samples, 0, 1, 16000)) == 62 * 64


def test_conversion_refuses_what_it_cannot_convert(many, single, tmp_path):
    tone = np.zeros(1000, np.float32)
    for sound, message in [
        (tone[:10], "10 samples is too short"),
        (tone * np.nan, "NaN"),
        (tone.astype(np.int16), "int16"),
        (np.zeros((2, 100), np.float32), r"shape \(2, 100\)"),
        (tmp_path / "no.wav", "no such file"),
    ]:
        with pytest.raises(ValueError, match=message):
            many.convert(sound, 0, 1)
    with pytest.raises(ValueError, match="no speaker 'dora'"):
        many.convert(tone, 0, "dora")
    with pytest.raises(ValueError, match="many speakers"):
        single.convert(tone, 0, 1)


def test_loading_by_folder_file_and_name(tmp_path, monkeypatch):
    conf = tiny_voices.settings()
    run = tmp_path / "logs" / "run"
    newest = tiny_voices.save(run, conf, step=20)
    tiny_voices.save(run, conf, step=3)
    state = torch.random.get_rng_state()
    voices = [Voice.load(run), Voice.load(str(newest))]
    assert torch.equal(torch.random.get_rng_state(), state)
    monkeypatch.chdir(tmp_path)
    voices.append(Voice.load("run", device="auto"))
    assert [voice.step for voice in voices] == [20] * 3
    expected = Voice(tiny_voices.network(conf), conf).speak("Hello", **QUIET).audio
    assert all(np.allclose(voice.speak("Hello", **QUIET).audio, expected, atol=1e-5) for voice in voices)
    with pytest.raises(ValueError, match="did you mean run"):
        Voice.load("runn")
    newest.rename(run / "G_best.pth")
    (run / "G_3.pth").unlink()
    assert Voice.load(run).step == 20
    (run / "G_best.pth").unlink()
    with pytest.raises(ValueError, match="holds no checkpoint"):
        Voice.load(run)


def test_files_of_vits_take_their_config_from_beside_or_as_named(tmp_path):
    conf = tiny_voices.settings(flow="fft", speakers=2)
    path = tiny_voices.save(tmp_path / "run", conf, with_config=False)
    assert Voice.load(path).config == conf
    (tmp_path / "run" / "config.json").rename(tmp_path / "other.json")
    with pytest.raises(ValueError, match=r"G_7\.pth holds no config"):
        Voice.load(path)
    assert Voice.load(path, tmp_path / "other.json").config == conf
    config.save(tiny_voices.settings(flow="pre_conv", speakers=2), tmp_path / "wrong.json")
    with pytest.raises(ValueError, match="its flow: fft; the config's: pre_conv"):
        Voice.load(path, tmp_path / "wrong.json")


def test_another_config_with_the_same_weights_is_refused(tmp_path):
    path = tiny_voices.save(tmp_path / "run", tiny_voices.settings(flow="mono_layer_inter_residual"))
    config.save(tiny_voices.settings(flow="mono_layer_post_residual"), tmp_path / "other.json")
    with pytest.raises(ValueError, match="trained with the flow 'mono_layer_inter_residual'"):
        Voice.load(path, tmp_path / "other.json")


def test_a_folder_of_another_kind_does_not_hide_a_run_of_its_name(tmp_path, monkeypatch):
    tiny_voices.save(tmp_path / "logs" / "docs", tiny_voices.settings())
    (tmp_path / "docs").mkdir()
    monkeypatch.chdir(tmp_path)
    assert Voice.load("docs").step == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": 1.5}, "seed is 1.5"),
        ({"speaker": 1.7}, "no speaker 1.7"),
        ({"text": b"Hi."}, "not bytes"),
        ({"text": None}, "not NoneType"),
    ],
)
def test_what_is_no_argument_is_refused(many, arguments, message):
    with pytest.raises(ValueError, match=message):
        many.speak(**{"text": "Hi.", "speaker": 1, **arguments})


def test_a_batch_of_no_pieces_and_a_seed_of_conversion_are_refused(many):
    with pytest.raises(ValueError, match="batch is 0"):
        many.speak_batch(["Hi."], 1, batch=0)
    with pytest.raises(ValueError, match="seed is -5"):
        many.convert(np.zeros(1000, np.float32), 0, 1, seed=-5)


def test_wrong_kinds_of_files(tmp_path):
    conf = tiny_voices.settings()
    config.save(conf, tmp_path / "config.json")
    checkpoint.save_checkpoint(MultiPeriodDiscriminator(), None, 0.1, 1, tmp_path / "D_1.pth")
    with pytest.raises(ValueError, match="holds a discriminator"):
        Voice.load(tmp_path / "D_1.pth")
    (tmp_path / "G_1.pth").write_text("no checkpoint")
    with pytest.raises(ValueError, match="does not load as a checkpoint"):
        Voice.load(tmp_path / "G_1.pth")
    for device in ("nonsense", "cuda:99"):
        with pytest.raises(ValueError, match="there is no device"):
            Voice.load(tiny_voices.save(tmp_path / "run", conf), device=device)


def test_a_table_of_its_own_speaks_ids_only(tmp_path):
    voice = Voice.load(tiny_voices.save(tmp_path, tiny_voices.settings(), n_vocab=60))
    assert len(voice.speak([1, 59, 3]).audio)
    with pytest.raises(ValueError, match="own table of 60 symbols, and the table here has 178"):
        voice.speak("hello")


def test_more_symbols_by_the_config(tmp_path):
    conf = tiny_voices.settings(data={"extra_symbols": "шч"})
    voice = Voice.load(tiny_voices.save(tmp_path, conf, n_vocab=180))
    assert voice.speak("шч a").tokens[:2] == [178, 179]


def test_the_network_is_built_from_every_key_of_the_config():
    voice = build(flow="pre_conv2", use_sdp=True)
    assert isinstance(voice.net, SynthesizerTrn) and voice.net.use_sdp
    assert not voice.net.training and not any(p.requires_grad for p in voice.net.parameters())
