"""Speak with a trained voice from the command line.

python inference.py -m NAME -t "Hello." -o hello.wav           a text
python inference.py -m NAME -f lines.txt -o folder             a file of lines, each to a wav (-f - reads stdin)
python inference.py -m NAME --convert in.wav --source A --speaker B -o out.wav     another speaker's voice
"""

import argparse
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from tqdm import tqdm

import plots
from audio import save_audio
from mel_processing import log_mel
from speech import PAUSE, Scales, Speech
from synthesis import Voice


@contextmanager
def errors_in_one_line(program: str) -> Iterator[None]:
    """What a user can put right becomes one line on stderr and exit code 2; warnings become one line each."""

    def in_one_line(message, *_args, **_kwargs) -> None:
        print(f"{program}: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = in_one_line
        try:
            yield
        except (ValueError, OSError) as error:
            print(f"{program}: {' '.join(str(error).split())}", file=sys.stderr)
            raise SystemExit(2) from None


def add_scales(parser: argparse.ArgumentParser) -> None:
    """The options of `speech.BaseVoice.speak`."""
    default = Scales()
    parser.add_argument("--noise-scale", type=float, default=default.noise_scale, help="variation of the sound")
    parser.add_argument("--noise-scale-w", type=float, default=default.noise_scale_w, help="variation of the rhythm")
    parser.add_argument("--length-scale", type=float, default=default.length_scale, help="above 1 is slower")
    parser.add_argument("--seed", type=int, help="the same number gives the same audio")
    parser.add_argument("--pause", type=float, default=PAUSE, help="seconds of silence between sentences")
    parser.add_argument("--phonemes", action="store_true", help="the text is what the cleaners would return")


def draw(voice: Voice, speech: Speech, path: str | Path) -> None:
    """Write a PNG of the spectrogram and of the alignment."""
    with torch.no_grad():
        mel = log_mel(torch.from_numpy(speech.audio).unsqueeze(0), voice.data)[0].numpy()
    title = " ".join(sentence.text for sentence in speech.sentences)
    plots.save_overview(path, mel, speech.alignment, {}, title[:100])


def read_lines(source: str) -> list[str]:
    """The lines of a file, or of standard input for "-", that are not blank."""
    try:
        content = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{source} is no UTF-8 text: byte {error.start} does not belong there") from None
    lines = [line.strip() for line in content.splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"{'standard input' if source == '-' else source} holds no text")
    return lines


def report(path: str | Path, seconds: float, elapsed: float) -> None:
    print(f"{path}: {seconds:.2f} s of audio, {seconds / elapsed:.1f} times real time")


def speak_text(voice: Voice, args: argparse.Namespace) -> None:
    path = _place(args.output or "speech.wav")
    begin = time.perf_counter()
    speech = voice.speak(args.text, **_how(args))
    elapsed = time.perf_counter() - begin
    save_audio(path, speech.audio, speech.sampling_rate)
    if args.picture:
        draw(voice, speech, args.picture)
    report(path, speech.seconds, elapsed)


def speak_lines(voice: Voice, args: argparse.Namespace) -> None:
    """Write 0001.wav, 0002.wav ... and `lines.txt`, in which each stands with its text."""
    lines = read_lines(args.file)
    for number, line in enumerate(lines, 1):  # before hours of work, not after
        try:
            voice.read(line, args.phonemes)
        except ValueError as error:
            raise ValueError(f"{args.file}, text {number}: {error}") from None
    folder = Path(args.output or "speech")
    folder.mkdir(parents=True, exist_ok=True)
    digits = max(4, len(str(len(lines))))
    seconds = elapsed = 0.0
    with (folder / "lines.txt").open("w", encoding="utf-8") as written:
        for number, line in enumerate(tqdm(lines, "speaking", unit="line", disable=len(lines) < 2), 1):
            begin = time.perf_counter()
            speech = voice.speak(line, **_how(args))
            elapsed += time.perf_counter() - begin
            seconds += speech.seconds
            name = f"{number:0{digits}}.wav"
            save_audio(folder / name, speech.audio, speech.sampling_rate)
            written.write(f"{name}|{line}\n")
    report(folder, seconds, elapsed)


def convert(voice: Voice, args: argparse.Namespace) -> None:
    path = _place(args.output or "converted.wav")
    begin = time.perf_counter()
    audio = voice.convert(args.convert, args.source, args.speaker, seed=args.seed)
    elapsed = time.perf_counter() - begin
    save_audio(path, audio, voice.sampling_rate)
    report(path, len(audio) / voice.sampling_rate, elapsed)


def _place(path: str) -> Path:
    """Make the folder of a file that is to be written."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return Path(path)


def _how(args: argparse.Namespace) -> dict:
    return {
        "speaker": args.speaker,
        "noise_scale": args.noise_scale,
        "noise_scale_w": args.noise_scale_w,
        "length_scale": args.length_scale,
        "seed": args.seed,
        "phonemes": args.phonemes,
        "pause": args.pause,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", required=True, help="run in logs/, its folder, or a checkpoint G_STEP.pth")
    parser.add_argument("-c", "--config", help="config file, for checkpoints that hold none and have none beside them")
    parser.add_argument("-o", "--output", help="file (.wav, .flac, .ogg) or, with -f, folder")
    parser.add_argument("-s", "--speaker", help="name or id, for models of many")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--picture", help="PNG to write, of the spectrogram and the alignment (with -t)")
    parser.add_argument("--source", help="with --convert: the speaker of the recording")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("-t", "--text", help="text to speak")
    what.add_argument("-f", "--file", help="UTF-8 file with a text on each line; - is standard input")
    what.add_argument("--convert", metavar="WAV", help="recording to say in another speaker's voice")
    what.add_argument("--list-speakers", action="store_true", help="print ids and names of the speakers")
    add_scales(parser)
    args = parser.parse_args(arguments)

    with errors_in_one_line("inference"):
        voice = Voice.load(args.model, args.config, args.device)
        if args.list_speakers:
            for name, number in voice.speakers.items():
                print(f"{number}\t{name}")
        elif args.convert:
            convert(voice, args)
        elif args.file:
            speak_lines(voice, args)
        else:
            speak_text(voice, args)


if __name__ == "__main__":
    main()
