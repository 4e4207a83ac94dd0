"""Speak with a trained voice from the command line.

python inference.py -m NAME -t "Hello." -o hello.wav           a text
python inference.py -m NAME -f lines.txt -o folder             a file of lines, each to a wav (-f - reads stdin)
python inference.py -m NAME -t "Hello." --output-raw | aplay -t raw -f S16_LE -r 22050     heard while it is made
python inference.py -m NAME --convert in.wav --source A --speaker B -o out.wav     another speaker's voice
"""

import argparse
import io
import json
import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile
import torch
from tqdm import tqdm

import plots
from audio import save_audio, to_pcm
from files import replacing, write_text
from mel_processing import log_mel
from speech import PAUSE, BaseVoice, Scales, Speech
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
            sys.stdout.flush()
        except BrokenPipeError:  # whoever read the output has left: there is nobody to tell
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(0) from None
        except (ValueError, OSError) as error:
            print(f"{program}: {' '.join(str(error).split())}", file=sys.stderr)
            raise SystemExit(2) from None


def add_scales(parser: argparse.ArgumentParser) -> None:
    """The options of `speech.BaseVoice.speak`; `speaking_options` reads them."""
    default = Scales()
    parser.add_argument("--noise-scale", type=float, default=default.noise_scale, help="variation of the sound")
    parser.add_argument("--noise-scale-w", type=float, default=default.noise_scale_w, help="variation of the rhythm")
    parser.add_argument("--length-scale", type=float, default=default.length_scale, help="above 1 is slower")
    parser.add_argument("--seed", type=int, help="the same number gives the same audio")
    parser.add_argument("--pause", type=float, default=PAUSE, help="seconds of silence between sentences")
    parser.add_argument("--normalize", action="store_true", help="as loud as it can be: the peak at -1 dBFS")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--phonemes", action="store_true", help="the text is what the cleaners would return")
    how.add_argument("--ids", action="store_true", help="the text is token ids, blanks included, with spaces between")
    parser.add_argument("--output-raw", action="store_true", help="16-bit mono PCM to stdout while it is made")
    parser.add_argument("--timings", help="file to write: when sentences, words and tokens speak (.json), or .srt")


def speaking_options(args: argparse.Namespace) -> dict:
    """What `add_scales` read, as arguments of `speak`."""
    names = ("noise_scale", "noise_scale_w", "length_scale", "seed", "phonemes", "pause", "normalize")
    return {name: getattr(args, name) for name in names}


def given_text(text: str, args: argparse.Namespace) -> str | list[int]:
    """The text, or the token ids that it is. Raises ValueError where `--ids` meets something else."""
    if not args.ids:
        return text
    try:
        return [int(token) for token in text.split()]
    except ValueError:
        raise ValueError(f"--ids takes whole numbers with spaces between, not {text[:40]!r}") from None


def write_raw(voice: BaseVoice, text: str | list[int], **options) -> None:
    """Speak to standard output, 16-bit little-endian mono PCM, part by part as it is made."""
    for part in voice.speak(text, stream=True, **options):
        sys.stdout.buffer.write(to_pcm(part).astype("<i2").tobytes())
        sys.stdout.buffer.flush()


def write_timings(speech: Speech, path: str | Path) -> None:
    """Write when everything speaks: subtitles if the file is called .srt, JSON if it is called .json."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_text(path, TIMINGS[Path(path).suffix.lower()](speech))


def timings_as_json(speech: Speech) -> str:
    """`Speech.timings` as JSON."""
    return json.dumps(speech.timings(), ensure_ascii=False, indent=1) + "\n"


def subtitles(speech: Speech) -> str:
    """The sentences of a speech as SubRip subtitles."""

    def clock(seconds: float) -> str:
        ms = round(1000 * seconds)
        return f"{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02},{ms % 1000:03}"

    def spoken(timed: dict) -> str:  # where only token ids were given
        return " ".join(word["symbols"] for word in timed["words"])

    return "\n".join(
        f"{number}\n{clock(timed['start'])} --> {clock(timed['end'])}\n{timed['text'] or spoken(timed)}\n"
        for number, timed in enumerate(speech.timings(), 1)
    )


TIMINGS = {".json": timings_as_json, ".srt": subtitles}


def refuse_contradictions(args: argparse.Namespace) -> None:
    """Raise ValueError for options that are empty or would be without effect, before any work is done."""
    given = {name.replace("_", "-"): value for name, value in vars(args).items() if value is not None}
    for option in ("file", "convert", "timings", "picture", "output"):
        if given.get(option) == "":
            raise ValueError(f"--{option} is empty")
    if args.timings and Path(args.timings).suffix.lower() not in TIMINGS:
        raise ValueError(f"{args.timings}: timings are written as {' or '.join(TIMINGS)}")
    if args.output_raw:
        for option in ("timings", "picture", "normalize", "output"):
            if given.get(option):
                raise ValueError(f"--{option} needs the whole speech, and --output-raw has only what is made so far")
    if "text" not in given:
        for option in ("timings", "picture"):
            if option in given:
                raise ValueError(f"--{option} goes with a single text, -t")
    if given.get("file") and given.get("output") == "-":
        raise ValueError("-o - is for one text: -f writes a file for each line, or all to stdout with --output-raw")
    if "convert" in given:
        default = Scales()._asdict() | dict.fromkeys(("phonemes", "ids", "normalize", "output_raw"), False)
        changed = [name for name, value in default.items() if getattr(args, name) != value]
        if changed:
            raise ValueError(f"--{changed[0].replace('_', '-')} goes with text, and not with --convert")
    elif "source" in given:
        raise ValueError("--source goes with --convert")


def picture(voice: Voice, speech: Speech) -> np.ndarray:
    """The spectrogram and which sound speaks when, pixels `[height, width, 3]`, 8 bit."""
    mel = log_mel(torch.from_numpy(speech.audio).unsqueeze(0), voice.data)[0].numpy()
    return plots.plot_speech_to_numpy(mel, speech)


def draw(voice: Voice, speech: Speech, path: str | Path) -> None:
    """Write `picture` as a PNG."""
    from matplotlib.image import imsave

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        imsave(unfinished, picture(voice, speech), format="png")


def read_lines(source: str) -> list[str]:
    """The lines of a file, or of standard input for "-", that are not blank."""
    name = "standard input" if source == "-" else source
    content = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    try:
        lines = [line.strip() for line in content.decode("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is no UTF-8 text: byte {error.start} does not belong there") from None
    if not lines:
        raise ValueError(f"{name} holds no text")
    return lines


def report(path: str | Path, seconds: float, elapsed: float) -> None:
    line = f"{path}: {seconds:.2f} s of audio, {seconds / elapsed:.1f} times real time"
    print(line, file=sys.stderr if path == "-" else sys.stdout)


def save(path: str, samples, sampling_rate: int) -> None:
    """Write audio to a file, whose folder is made, or as WAV to standard output for "-"."""
    if path != "-":
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        save_audio(path, samples, sampling_rate)
        return
    wav = io.BytesIO()
    soundfile.write(wav, to_pcm(samples), sampling_rate, format="WAV")
    sys.stdout.buffer.write(wav.getvalue())


def speak_text(voice: BaseVoice, args: argparse.Namespace) -> None:
    """A text to a file, or heard while it is made."""
    text = given_text(args.text, args)
    if args.output_raw:
        return write_raw(voice, text, speaker=args.speaker, **speaking_options(args))
    path = args.output or "speech.wav"
    begin = time.perf_counter()
    speech = voice.speak(text, args.speaker, **speaking_options(args))
    elapsed = time.perf_counter() - begin
    save(path, speech.audio, speech.sampling_rate)
    if args.timings:
        write_timings(speech, args.timings)
    if args.picture:
        draw(voice, speech, args.picture)
    report(path, speech.seconds, elapsed)


def speak_lines(voice: Voice, args: argparse.Namespace) -> None:
    """Write 0001.wav, 0002.wav ... and `lines.txt`, in which each stands with its text."""
    lines = read_lines(args.file)
    for number, line in enumerate(lines, 1):  # before hours of work, not after
        try:
            voice.read(given_text(line, args), args.phonemes)
        except ValueError as error:
            source = "standard input" if args.file == "-" else args.file
            raise ValueError(f"{source}, text {number}: {error}") from None
    options = speaking_options(args)
    if args.output_raw:
        for line in lines:
            write_raw(voice, given_text(line, args), speaker=args.speaker, **options)
        return
    folder = Path(args.output or "speech")
    folder.mkdir(parents=True, exist_ok=True)
    digits = max(4, len(str(len(lines))))
    seconds = elapsed = 0.0
    with (folder / "lines.txt").open("w", encoding="utf-8") as written:
        for number, line in enumerate(tqdm(lines, "speaking", unit="line", disable=len(lines) < 2), 1):
            begin = time.perf_counter()
            speech = voice.speak(given_text(line, args), args.speaker, **options)
            elapsed += time.perf_counter() - begin
            seconds += speech.seconds
            name = f"{number:0{digits}}.wav"
            save_audio(folder / name, speech.audio, speech.sampling_rate)
            written.write(f"{name}|{line}\n")
    report(folder, seconds, elapsed)


def convert(voice: Voice, args: argparse.Namespace) -> None:
    path = args.output or "converted.wav"
    begin = time.perf_counter()
    audio = voice.convert(args.convert, args.source, args.speaker, seed=args.seed)
    elapsed = time.perf_counter() - begin
    save(path, audio, voice.sampling_rate)
    report(path, len(audio) / voice.sampling_rate, elapsed)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", required=True, help="run in logs/, its folder, or a checkpoint G_STEP.pth")
    parser.add_argument("-c", "--config", help="config file, for checkpoints that hold none and have none beside them")
    parser.add_argument(
        "-o",
        "--output",
        help="file (.wav, .flac, .ogg; - is stdout; default: speech.wav, converted.wav) or, with -f, folder",
    )
    parser.add_argument("-s", "--speaker", help="name or id, for models of many")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--fp32", action="store_true", help="on a GPU, decode in fp32, not in fp16")
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
        refuse_contradictions(args)
        voice = Voice.load(args.model, args.config, args.device, half=not args.fp32)
        if args.list_speakers:
            for name, number in voice.speakers.items():
                print(f"{number}\t{name}")
            if not voice.speakers:
                print("inference: this voice is a single one, without a choice of speakers", file=sys.stderr)
        elif args.convert is not None:
            convert(voice, args)
        elif args.file is not None:
            speak_lines(voice, args)
        else:
            speak_text(voice, args)


if __name__ == "__main__":
    main()
