"""Times speech from text: how many times faster than real time, milliseconds a sentence, and until the first sound.

Prints one JSON line. Without --model it times random weights of the shape of configs/vits2_ljs_nosdp.json, set to
speak at the pace of LJ Speech. First sound is that of a text of several sentences.
"""

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import config as configs
from models import SynthesizerTrn
from speech import BaseVoice
from synthesis import Voice, find_device
from text import table_of_symbols

DEFAULT_CONFIG = Path(__file__).resolve().parents[1] / "configs" / "vits2_ljs_nosdp.json"
FRAMES = 4.5  # a token; rounded up by the network to 5, as LJ Speech has
# Phonemes, so that espeak is not part of the time; the lengths are those of LJ Speech's sentences, 2, 6 and 10 s.
SENTENCES = [
    "ðə bˈɜːtʃ kənˈuː slˈɪd ˌɔn ðə smˈuːð plˈæŋks.",
    "ðə kwˈɪk bɹˈaʊn fˈɑːks dʒˈʌmps ˌoʊvɚ ðə lˈeɪzi dˈɔɡ, wˌaɪl ˈɔːl ðɪ ˈʌðɚ ˈænɪməlz wˈɑːtʃ ænd wˈʌndɚ wˌaɪ.",
    "ɪn ðə mˈɔːɹnɪŋ ðeɪ wˈɔːkt dˌaʊn tə ðə hˈɑːɹbɚ, bˈɔːt fɹˈɛʃ bɹˈɛd ænd kˈɔfi, ænd sˈæt ˌɔn ðə wˈɔːl ʌntˈɪl ðə "
    "fˈɜːst bˈoʊts kˈeɪm bˈæk wɪð ðɛɹ kˈætʃ, sˈɪlvɚɹi ænd kˈoʊld, ɪn bˈɑːksᵻz.",
]


def random_voice(config_path: Path, device: str) -> Voice:
    """A voice of the config's shape with random weights and steady durations."""
    config = configs.load(config_path)
    torch.manual_seed(0)
    net = SynthesizerTrn(
        len(table_of_symbols()),
        config.spec_channels,
        config.segment_frames,
        n_speakers=config.data.n_speakers,
        **dataclasses.asdict(config.model),
    )
    if config.model.use_sdp:
        raise SystemExit(f"benchmarks/synthesis: {config_path} has a stochastic predictor: give a checkpoint, --model")
    with torch.no_grad():
        net.dp.proj.weight.zero_()
        net.dp.proj.bias.fill_(torch.tensor(FRAMES).log())
    return Voice(net.to(find_device(device)), config)


def onnx_voice(voice: Voice, threads: int) -> BaseVoice:
    """The same voice, exported and loaded into ONNX Runtime."""
    from export_onnx import export
    from infer_onnx import OnnxVoice

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "voice.onnx"
        export(voice, path)
        return OnnxVoice(path, threads=threads)


def times(voice: BaseVoice, text, speaker: int | None, repeats: int, wait) -> tuple[float, float]:
    """Median seconds to speak a text, and seconds of audio it gives."""
    measured = []
    for _ in range(repeats + 1):
        wait()
        begin = time.perf_counter()
        speech = voice.speak(text, speaker, pause=0)
        measured.append(time.perf_counter() - begin)
    return statistics.median(measured[1:]), speech.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="run, folder or checkpoint")
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help="shape of the random weights")
    parser.add_argument("--runtime", choices=["torch", "onnx"], default="torch")
    parser.add_argument("--device", default="cpu", help="auto, cpu or cuda (PyTorch only)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves the runtime's own choice")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    if args.runtime == "onnx" and args.device != "cpu":
        raise SystemExit("benchmarks/synthesis: ONNX Runtime is timed on the CPU; leave out --device")
    if args.threads:
        torch.set_num_threads(args.threads)

    voice = Voice.load(args.model, device=args.device) if args.model else random_voice(args.config, args.device)
    wait = torch.cuda.synchronize if voice.device.type == "cuda" else lambda: None
    device = torch.cuda.get_device_name(voice.device) if voice.device.type == "cuda" else "cpu"
    if args.runtime == "onnx":
        voice = onnx_voice(voice, args.threads)
    speaker = 0 if voice.data.n_speakers else None
    # ids, with blanks where the voice has them, so that each is one piece
    tokens = [voice.read(sentence, phonemes=True)[0].tokens for sentence in SENTENCES]
    spoken = [times(voice, ids, speaker, args.repeats, wait) for ids in tokens]
    first = spoken[0][0]  # sentences come one by one, so the first sound is the first sentence's last
    print(
        json.dumps(
            {
                "runtime": args.runtime,
                "device": device,
                "threads": args.threads or torch.get_num_threads(),
                "torch": torch.__version__,
                "times_real_time": round(sum(s for _, s in spoken) / sum(t for t, _ in spoken), 2),
                "sentences": [{"seconds": round(s, 2), "ms": round(1000 * t, 1)} for t, s in spoken],
                "first_sound_ms": round(1000 * first, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
