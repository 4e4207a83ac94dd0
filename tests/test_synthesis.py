"""Voices equal their networks, repeat themselves with a seed, and refuse text and settings that they cannot use."""

import contextlib
import threading
import time
import warnings

import numpy as np
import pytest
import soundfile
import tiny
import tiny_voices
import torch

import checkpoint
import commons
import config
from discriminators import MultiPeriodDiscriminator
from models import SynthesizerTrn
from synthesis import Voice, sentences, speech
from text import clean_text, intersperse, text_to_sequence

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
def several():
    return build(speakers=TABLE, use_sdp=True)


def test_tokens_of_frames_equal_the_path():
    durations = torch.tensor([[2.0, 0.0, 3.0, 1.0], [0.0, 4.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    token, spoken = commons.tokens_of_frames(durations)
    assert spoken.sum(1).tolist() == [6, 4, 1]
    path = commons.generate_path(durations.unsqueeze(1), spoken[:, None, :, None] * torch.ones(3, 1, 1, 4))
    assert torch.equal(token[:2] * spoken[:2], path[:2, 0].argmax(2) * spoken[:2])


def test_speech_has_the_timing_of_its_tokens(single):
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


def test_blanks_follow_the_config():
    voice = build(data={"add_blank": True})
    assert voice.speak("hello").tokens == intersperse(text_to_sequence("hello", ["basic_cleaners"]), 0)


def test_long_text_is_synthesized_by_sentences_with_pauses(single):
    spoken = single.speak(TEXT, **QUIET, pause=0.5)
    first, second = spoken.sentences
    assert [first.text, second.text] == [piece.text for piece in sentences.split(TEXT)]
    assert first.start == 0 and second.start == len(first.audio) + 4000
    assert not spoken.audio[len(first.audio) : second.start].any()
    assert np.array_equal(spoken.audio[second.start :], second.audio)
    alone = single.speak(second.text, **QUIET)
    assert np.array_equal(alone.audio, second.audio)
    assert len(single.speak(TEXT, **QUIET, pause=0).audio) == len(spoken.audio) - 4000
    long = single.speak("word " * 200, **QUIET)
    assert len(long.sentences) > 4 and len(long.audio) == long.durations.sum() * 64  # no pause in a sentence


STREAMS = {
    "resblock 1": {"upsample_rates": [8, 2, 4], "upsample_kernel_sizes": [16, 4, 8], "upsample_initial_channel": 32},
    "resblock 2": {"resblock": "2", "resblock_kernel_sizes": [3, 7], "resblock_dilation_sizes": [[1, 2], [2, 6]]},
    "several speakers, stochastic": {"speakers": TABLE, "use_sdp": True, "resblock_kernel_sizes": [11]},
    "vocos": {"decoder": "vocos"},
    "harmonic_vocos, several speakers": {"decoder": "harmonic_vocos", "speakers": TABLE, "convnext_layers": 1},
    "mb_istft": tiny.DECODERS["mb_istft"],
    "mb_istft, several speakers": {
        **tiny.DECODERS["mb_istft"],
        "speakers": TABLE,
        "subbands": 2,
        "istft_hop_length": 8,
    },
    "vocos, several speakers": {"decoder": "vocos", "speakers": TABLE, "convnext_layers": 1, "istft_n_fft": 128},
}


@pytest.mark.parametrize("case", STREAMS)
def test_a_stream_equals_the_whole_speech(case, monkeypatch):
    monkeypatch.setattr(speech, "FIRST_CHUNK", 4)
    monkeypatch.setattr(speech, "MAX_CHUNK", 16)
    voice = build(**STREAMS[case])
    speaker = "bo" if voice.data.n_speakers else None
    state = torch.random.get_rng_state()
    whole = voice.speak(TEXT, speaker, seed=3)
    done = []
    parts = list(voice.speak(TEXT, speaker, seed=3, stream=True, progress=lambda *at: done.append(at)))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert len(parts) > 10 and len(parts[0]) == 4 * 64
    np.testing.assert_allclose(np.concatenate(parts), whole.audio, atol=1e-5)
    assert done == [(1, 2), (2, 2)]


@pytest.mark.parametrize("case", STREAMS)
def test_the_audio_of_a_frame_depends_on_exactly_the_context(case):
    net = build(**STREAMS[case]).net
    dec = net.dec.double()
    z = torch.randn(1, 8, 61, dtype=torch.double, generator=torch.Generator().manual_seed(0)).requires_grad_()
    unvoiced = torch.zeros(1, 1, 61).double()
    latent = dec.excite(z, unvoiced + 1, f0=unvoiced)
    audio = dec(latent, torch.zeros(1, 8, 1).double() if net.conditions else None)
    assert audio.size(2) == 61 * dec.hop
    (grad,) = torch.autograd.grad(audio[0, 0, 30 * dec.hop : 31 * dec.hop].square().sum(), z)
    frames = grad.abs().sum((0, 1)).nonzero().flatten().tolist()
    assert (30 - frames[0], frames[-1] - 30) == (dec.context, dec.context)


def test_other_random_draws_do_not_affect_a_stream_with_a_seed(several):
    expected = several.speak(TEXT, 1, seed=3).audio
    parts = []
    for part in several.speak(TEXT, 1, seed=3, stream=True):
        parts.append(part)
        torch.randn(7)
        several.speak("Hi.", 0, seed=9)
    np.testing.assert_allclose(np.concatenate(parts), expected, atol=1e-5)


def test_a_stream_raises_errors_before_it_begins(single):
    with pytest.raises(ValueError, match="empty"):
        single.speak(" ", stream=True)
    with pytest.raises(ValueError, match="cannot be normalized"):
        single.speak("Hi.", stream=True, normalize=True)


def test_timings_equal_the_durations(single):
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


def test_normalized_audio_peaks_at_minus_one_dbfs(single):
    plain, loud = (single.speak(TEXT, **QUIET, normalize=normalize) for normalize in (False, True))
    assert np.abs(loud.audio).max() == pytest.approx(10 ** (-1 / 20), abs=1e-6)
    factor = np.abs(loud.audio).max() / np.abs(plain.audio).max()
    np.testing.assert_allclose(loud.audio, plain.audio * factor, atol=1e-6)
    assert np.array_equal(loud.audio[loud.sentences[1].start :], loud.sentences[1].audio)


def test_short_text_and_text_without_words(single):
    assert len(single.speak("a").audio) > 0
    assert [s.text for s in single.speak("--- ! Yes. ...").sentences] == ["Yes."]
    for text, message in [("", "empty"), (" \n\n ", "empty"), ("?!... ,", "'\\?!... ,' can be pron"), ("_", "can be")]:
        with pytest.raises(ValueError, match=message):
            single.speak(text)
    with warnings.catch_warnings(), pytest.raises(ValueError, match="nothing in the text '你好' can be pronounced"):
        warnings.simplefilter("error")
        single.speak("你好")


def test_a_piece_that_cannot_be_pronounced_is_left_out_with_a_warning(single):
    with pytest.warns(UserWarning, match="nothing in '你好.' can be pronounced"):
        assert [line.text for line in single.read("Yes. 你好. No.")] == ["Yes.", "No."]


def test_marks_of_a_text(single):
    """Breaks are silence of their length, and languages and phonemes stay in their places."""
    text = '<break time="100ms"/>One <break time="250ms"/>[[tuː. b]] it. <break time="1s"/><break time="1s"/>'
    lines = single.read(text)
    assert [(line.symbols, line.before, line.after) for line in lines] == [("one", 0.1, 0.25), ("tuː. b it.", 0, 2.0)]
    spoken = single.speak(text, **QUIET)
    streamed = np.concatenate(list(single.speak(text, **QUIET, stream=True)))
    batched = single.speak_batch([text], **QUIET)[0]
    lengths = [len(sentence.audio) for sentence in spoken.sentences]
    assert len(spoken.audio) == 800 + lengths[0] + 2000 + lengths[1] + 16000
    assert spoken.sentences[0].start == 800 and spoken.sentences[1].start == 800 + lengths[0] + 2000
    assert not spoken.audio[:800].any() and not spoken.audio[-16000:].any()
    np.testing.assert_allclose(spoken.audio, batched.audio, atol=1e-6)
    np.testing.assert_allclose(spoken.audio, streamed, atol=1e-6)


def test_a_language_for_a_sentence(recwarn):
    voice = build(data={"text_cleaners": ["phonemes_en-us"], "dictionary": {"hi": "hello"}})
    mixed = voice.read('Hi. She said <lang xml:lang="de-DE">Guten Tag. Hi</lang> today.')
    german, american = (lambda text, code=code: clean_text(text, [f"phonemes_{code}"]) for code in ("de", "en-us"))
    expected = [american("hello."), american("She said"), german("Guten Tag."), german("Hi"), american("today.")]
    assert [line.symbols for line in mixed] == expected
    assert [line.ends for line in mixed] == [True, False, True, False, True]
    assert not recwarn
    with pytest.warns(UserWarning, match="the script of 'Привет' is not that of the language"):
        voice.read('Привет <lang xml:lang="ru">Привет.</lang>')
    with pytest.raises(ValueError, match="espeak-ng has no language 'xx'"):
        voice.read('<lang xml:lang="xx">a</lang>')


def test_marks_take_linear_time(single):
    for text in (
        "<break" * 20_000,
        '[[a]]. <break time="1ms"/>' * 500,
        "[[" * 40_000,
        "[[a" * 9_000 + "Dr. e.g. " * 900,
    ):
        begin = time.perf_counter()
        with contextlib.suppress(ValueError):
            single.read(text)
        assert time.perf_counter() - begin < 5


def test_phonemes_and_ids_do_not_pass_the_cleaners():
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


def test_a_seed_determines_the_audio_and_keeps_the_global_random_state(several):
    def say(seed):
        return several.speak(TEXT, "bo", seed=seed).audio

    first = say(5)
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    assert np.array_equal(say(5), first)
    assert torch.equal(torch.random.get_rng_state(), state)
    other = say(6)
    assert other.shape != first.shape or not np.array_equal(other, first)
    free = [several.speak("Hello.", 0).audio for _ in range(2)]
    assert free[0].shape != free[1].shape or not np.array_equal(*free)
    with pytest.raises(ValueError, match="seed is -1"):
        say(-1)


def test_threads_get_their_own_audio(several):
    texts = ["One text.", "And another, which is longer.", "A third."] * 3
    expected = [several.speak(text, 1, seed=3).audio for text in texts]
    spoken = [None] * len(texts)

    def work(i):
        spoken[i] = several.speak(texts[i], 1, seed=3).audio

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(texts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(a, b) for a, b in zip(spoken, expected))


@pytest.mark.parametrize("noise", [{"seed": 7}, {"noise_scale": 0.0, "noise_scale_w": 0.0}], ids=["seed", "no noise"])
@pytest.mark.parametrize(
    "options",
    [{}, {"flow": "fft", "speakers": TABLE, "use_sdp": True}, {"flow": "pre_conv2", "use_duration_noise": True}],
)
def test_a_batch_equals_its_lines_alone(options, noise):
    voice = build(**options)
    speaker = "carla" if voice.data.n_speakers else None
    lines = [TEXT, "Short.", "A line in the middle, of middle length.", TEXT]
    state = torch.random.get_rng_state()
    batch = voice.speak_batch(lines, speaker, **noise, batch=3)
    assert torch.equal(torch.random.get_rng_state(), state) or "seed" not in noise
    for line, spoken in zip(lines, batch):
        alone = voice.speak(line, speaker, **noise)
        assert np.array_equal(spoken.durations, alone.durations)
        np.testing.assert_allclose(spoken.audio, alone.audio, atol=1e-5)
    assert voice.speak_batch([], speaker) == []


@pytest.mark.parametrize("case", STREAMS)
def test_latents_of_different_lengths_decoded_together_equal_each_alone(case):
    """GPUs decode together; here the CPU does."""
    voice = build(**STREAMS[case])
    lines = [voice.read(text)[0] for text in ("word " * 30, "word " * 21, "word " * 15)]
    values = voice.example_conditions()
    latents = voice._latents([line.tokens for line in lines], values, speech.Scales(), [1, 2, 3])
    latents = [latent for latent in latents if latent.frames > 2 * voice.context]
    assert len({latent.frames for latent in latents}) > 1
    for latent, audio in zip(latents, voice._decode_together(latents)):
        np.testing.assert_allclose(audio, voice._decode(latent, 0, latent.frames), atol=3e-5)


def test_pieces_of_a_text_draw_different_noise(single):
    first, second = single.speak("One word here. One word here.", seed=3).sentences
    assert len(first.audio) != len(second.audio) or not np.allclose(first.audio, second.audio, atol=1e-3)


def test_speakers_by_name_and_id(several, single):
    assert several.speakers == TABLE
    by_name, by_id, by_text = (several.speak("Hi.", s, **QUIET).audio for s in ("bo", 1, "1"))
    assert np.array_equal(by_name, by_id) and np.array_equal(by_name, by_text)
    other = several.speak("Hi.", "anna", **QUIET).audio
    assert other.shape != by_id.shape or not np.array_equal(other, by_id)
    for speaker, message in [
        ("carl", "no speaker 'carl'; did you mean carla\\? Choices: anna, bo, carla"),
        (3, "no speaker 3. Choices"),
        (-1, "no speaker -1"),
        (None, "choose one of anna, bo, carla"),
    ]:
        with pytest.raises(ValueError, match=message):
            several.speak("Hi.", speaker)
    with pytest.raises(ValueError, match="single voice"):
        single.speak("Hi.", "anna")
    unnamed = build(speakers=30)
    assert unnamed.speakers == {str(i): i for i in range(30)}
    with pytest.raises(ValueError, match=r"18, 19 \.\.\. \(30 in total\)"):
        unnamed.speak("Hi.", 30)


def test_a_numeric_name_takes_precedence_over_an_id():
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


def test_durations_are_proportional_to_length_scale(single):
    once, twice = (single.speak(TEXT, length_scale=scale, **QUIET).durations.sum() for scale in (1.0, 2.0))
    assert 1.7 < twice / once < 2.1


def test_an_untrained_or_broken_network_is_refused():
    conf = tiny_voices.settings()
    untrained = Voice(tiny_voices.network(conf, frames=1e6), conf)
    with pytest.raises(ValueError, match="hardly trained"):
        untrained.speak("Hello.")
    broken = Voice(tiny_voices.network(conf), conf)
    next(broken.net.dec.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match="NaN or infinity"):
        broken.speak("Hello.")


@pytest.mark.parametrize("mel", [True, False])
def test_conversion_equals_the_network(mel, tmp_path):
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


def test_conversion_refuses_wrong_recordings_and_speakers(several, single, tmp_path):
    tone = np.zeros(1000, np.float32)
    for sound, message in [
        (tone[:10], "10 samples are too short"),
        (tone * np.nan, "NaN"),
        (tone.astype(np.int16), "int16"),
        (np.zeros((2, 100), np.float32), r"shape \(2, 100\)"),
        (tmp_path / "no.wav", "no such file"),
    ]:
        with pytest.raises(ValueError, match=message):
            several.convert(sound, 0, 1)
    with pytest.raises(ValueError, match="no speaker 'dora'"):
        several.convert(tone, 0, "dora")
    with pytest.raises(ValueError, match="several speakers"):
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


def test_the_config_of_vits_files_is_beside_them_or_named(tmp_path):
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


def test_another_flow_with_weights_of_the_same_names_is_refused(tmp_path):
    path = tiny_voices.save(tmp_path / "run", tiny_voices.settings(flow="mono_layer_inter_residual"))
    config.save(tiny_voices.settings(flow="mono_layer_post_residual"), tmp_path / "other.json")
    with pytest.raises(ValueError, match="trained with the flow 'mono_layer_inter_residual'"):
        Voice.load(path, tmp_path / "other.json")


def test_a_folder_without_checkpoints_does_not_hide_a_run_of_its_name(tmp_path, monkeypatch):
    tiny_voices.save(tmp_path / "logs" / "docs", tiny_voices.settings())
    (tmp_path / "docs").mkdir()
    monkeypatch.chdir(tmp_path)
    assert Voice.load("docs").step == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": 1.5}, "seed is 1.5"),
        ({"seed": True}, "seed is True"),
        ({"speaker": 1.7}, "no speaker 1.7"),
        ({"text": b"Hi."}, "not bytes"),
        ({"text": None}, "not NoneType"),
    ],
)
def test_arguments_of_wrong_types_are_refused(several, arguments, message):
    with pytest.raises(ValueError, match=message):
        several.speak(**{"text": "Hi.", "speaker": 1, **arguments})


def test_an_empty_batch_size_and_a_negative_seed_are_refused(several):
    with pytest.raises(ValueError, match="batch is 0"):
        several.speak_batch(["Hi."], 1, batch=0)
    with pytest.raises(ValueError, match="seed is -5"):
        several.convert(np.zeros(1000, np.float32), 0, 1, seed=-5)


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


def test_a_network_with_its_own_symbol_table_takes_ids_only(tmp_path):
    voice = Voice.load(tiny_voices.save(tmp_path, tiny_voices.settings(), n_vocab=60))
    assert len(voice.speak([1, 59, 3]).audio)
    with pytest.raises(ValueError, match="own table of 60 symbols, and the table here has 178"):
        voice.speak("hello")


def test_the_config_adds_symbols(tmp_path):
    conf = tiny_voices.settings(data={"extra_symbols": "шч"})
    voice = Voice.load(tiny_voices.save(tmp_path, conf, n_vocab=180))
    assert voice.speak("шч a").tokens[:2] == [178, 179]


def test_the_network_is_built_from_the_config_for_inference():
    voice = build(flow="pre_conv2", use_sdp=True)
    assert isinstance(voice.net, SynthesizerTrn) and voice.net.use_sdp
    assert not voice.net.training and not any(p.requires_grad for p in voice.net.parameters())
