"""Speak with a trained voice.

Examples:
  python inference.py -t "Hello." -o hello.wav              (the pretrained voice)
  python inference.py -m NAME -t "Hello." -o hello.wav
  python inference.py -m NAME -f lines.txt -o folder        (one audio file per line; -f - reads standard input)
  python inference.py -m NAME -t "Hello." --output-raw | aplay -t raw -f S16_LE -r 22050        (streaming)
  my_language_model | python inference.py -m NAME -t - --output-raw | aplay -t raw -f S16_LE -r 22050
  python inference.py -m NAME --convert in.wav --source anna --speaker ben -o out.wav
"""

import cli

if __name__ == "__main__":
    cli.interrupts_in_one_line()

import argparse
import codecs
import io
import json
import re
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from tqdm import tqdm

import synthesis
from audio import save_audio
from files import PRETRAINED, replacing, write_text
from synthesis.output import report, save, speak_to_file, write_parts, write_raw
from synthesis.output import subtitles as subtitles  # for notebooks
from synthesis.speech import Scales, Speech

LINES = "lines.txt"  # lists the files of -f
BATCHES = 4  # of lines that are sorted by length; those of a stopped run are spoken again
READ = 4096  # bytes of standard input that are read at once


def picture(voice: "synthesis.Voice", speech: Speech) -> np.ndarray:
    """Draw the spectrogram and the times of the tokens. Returns pixels `[height, width, 3]`, 8 bit."""
    import torch  # takes seconds, and --help does not need it

    import plots
    from mel_processing import log_mel

    mel = log_mel(torch.from_numpy(speech.audio).unsqueeze(0), voice.data)[0].numpy()
    return plots.plot_speech_to_numpy(mel, speech)


def draw(voice: "synthesis.Voice", speech: Speech, path: str | Path) -> None:
    """Write `picture` as a PNG."""
    from matplotlib.image import imsave

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        imsave(unfinished, picture(voice, speech), format="png")


def speak_lines(voice: "synthesis.Voice", args: argparse.Namespace) -> None:
    """Speak every line of `-f`, to 0001.wav, 0002.wav and so on, with `lines.txt` to list files and texts.

    `speech.json` beside them holds the settings. The same command goes on after the last line of a stopped run; with
    other settings or texts, the files of the earlier run are removed first.

    Warns of lines that cannot be spoken and leaves them out. Raises ValueError if no line can be spoken.
    """
    lines, spoken, failed = read_lines(args.file), [], []
    for number, line in enumerate(lines, 1):  # find errors before hours of work
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # they are shown when the line is spoken
                voice.read(cli.given_text(line, args), args.phonemes)
            spoken.append((number, line))
        except ValueError as error:
            failed.append(f"{source_name(args.file)}, text {number}: {error}")
    if not spoken:
        raise ValueError(f"{failed[0]}; none of the texts can be spoken")
    for reason in failed:
        warnings.warn(f"{reason}; it is left out", stacklevel=2)
    options = cli.speaking_options(args)
    if args.output_raw:
        for _, line in spoken:
            write_raw(voice, cli.given_text(line, args), **options)
        return
    folder = Path(args.output or "speech")
    folder.mkdir(parents=True, exist_ok=True)
    digits = max(4, len(str(len(lines))))
    entries = [f"{number:0{digits}}.wav|{line}" for number, line in spoken]
    checkpoint = synthesis.find_checkpoint(args.model)
    settings = options | {"ids": args.ids, "voice": str(checkpoint.resolve()), "changed": checkpoint.stat().st_mtime}
    done = start_folder(folder, entries, settings)
    seconds = elapsed = 0.0
    try:
        count, at_once = len(entries), BATCHES * voice.batch
        bar = tqdm(None, "speaking", count, leave=False, unit="line", disable=count < 2, initial=done)
        with (folder / LINES).open("a", encoding="utf-8") as listed, bar:
            for first in range(done, count, at_once):
                some = [entry.partition("|") for entry in entries[first : first + at_once]]
                begin = time.perf_counter()
                speeches = voice.speak_batch([cli.given_text(line, args) for *_, line in some], **options)
                elapsed += time.perf_counter() - begin
                for (name, _, line), speech in zip(some, speeches):
                    seconds += speech.seconds
                    save_audio(folder / name, speech.audio, speech.sampling_rate)
                    listed.write(f"{name}|{line}\n")
                    listed.flush()
                    done += 1
                    bar.update()
    except KeyboardInterrupt:
        program = cli.command("inference")
        print(f"{program}: stopped after {done} of {len(entries)} lines; the same command goes on", file=sys.stderr)
        raise SystemExit(cli.INTERRUPTED) from None
    report(folder, seconds, elapsed)


def start_folder(folder: Path, entries: list[str], settings: dict[str, Any]) -> int:
    """Return how many entries of `lines.txt` a run with these settings has spoken before it was stopped.

    The files of any other run, or of a finished one, are removed, so that the folder holds those of one run only.
    """
    listed, described = folder / LINES, folder / "speech.json"
    before = listed.read_text("utf-8").splitlines() if listed.is_file() else []
    same = described.is_file() and described.read_text("utf-8") == json.dumps(settings)
    stopped = len(before) < len(entries) and before == entries[: len(before)]
    if same and stopped and all((folder / line.partition("|")[0]).is_file() for line in before):
        return len(before)
    for line in before:
        if spoken := re.fullmatch(r"(\d{4,}\.wav)\|.*", line):
            (folder / spoken[1]).unlink(missing_ok=True)
    listed.write_text("", "utf-8")
    write_text(described, json.dumps(settings))
    return 0


def read_lines(source: str) -> list[str]:
    """Read the non-blank lines of a UTF-8 file, or of standard input for "-"."""
    try:
        content = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read {source}: {error.strerror}") from None
    try:
        lines = [line.strip() for line in content.decode("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{source_name(source)} is not UTF-8: {error.reason} at byte {error.start}") from None
    if not lines:
        raise ValueError(f"{source_name(source)} has no text")
    return lines


def arriving_text() -> Iterator[str]:
    """Yield the text of standard input, UTF-8, as it arrives."""
    decoder, source = codecs.getincrementaldecoder("utf-8-sig")(), cast(io.BufferedReader, sys.stdin.buffer)
    try:
        while content := source.read1(READ):
            yield decoder.decode(content)
        yield decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise ValueError(f"standard input is not UTF-8: {error.reason}") from None


def source_name(source: str) -> str:
    """Return the name of a text file for messages."""
    return "standard input" if source == "-" else source


def convert(voice: "synthesis.Voice", args: argparse.Namespace) -> None:
    """Convert the recording of `--convert` to another speaker's voice."""
    path = args.output or "converted.wav"
    for option in ("source", "speaker"):
        if getattr(args, option) is None and voice.speakers:
            names = ", ".join(voice.speakers)
            raise ValueError(f"--convert needs --{option}, the name or number of a speaker of this voice: {names}")
    begin = time.perf_counter()
    audio = voice.convert(args.convert, args.source, args.speaker, seed=args.seed)
    elapsed = time.perf_counter() - begin
    save(path, audio, voice.sampling_rate)
    report(path, len(audio) / voice.sampling_rate, elapsed)


def check_options(args: argparse.Namespace) -> None:
    """Raise ValueError for an option that is empty or has no effect in this combination."""
    cli.check_speaking_options(args)
    for option in ("timings", "picture") if args.text is None else ():
        if getattr(args, option):
            raise ValueError(f"--{option} needs a single text, -t")
    if args.file and args.output == "-":
        raise ValueError("-o - needs a single text, -t; with -f use --output-raw, or a folder for -o")
    if args.convert:
        default = Scales()._asdict() | dict.fromkeys(("phonemes", "ids", "normalize", "output_raw"), False)
        changed = [name for name, value in default.items() if getattr(args, name) != value]
        if changed:
            raise ValueError(f"--{changed[0].replace('_', '-')} has no effect with --convert")
    elif args.source is not None:
        raise ValueError("--source needs --convert")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program with the given arguments, by default those of the command line."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("-t", "--text", help="text to speak; - is standard input, with --output-raw while it arrives")
    task.add_argument("-f", "--file", help="UTF-8 file with one text per line; - is standard input")
    task.add_argument("--convert", metavar="WAV", help="recording to convert to the voice of --speaker")
    task.add_argument("--list-speakers", action="store_true", help="print ids and names of the speakers")
    cli.add_run(parser, "-m", "--model", default=PRETRAINED.name)
    cli.add_config(parser, "-c", "--config")
    output = "audio file (.wav, .flac, .ogg; - is standard output), or folder with -f"
    add("-o", "--output", help=f"{output} (default: speech.wav, speech/ or converted.wav)")
    add("-s", "--speaker", help="name or id, for a voice of several speakers")
    add("--source", metavar="SPEAKER", help="with --convert: the speaker of the recording")
    cli.add_device(parser)
    add("--fp32", action="store_true", help="decode in fp32 on a GPU, not in fp16")
    add("--picture", metavar="PNG", help="with -t: write the spectrogram and the alignment")
    cli.add_speaking_options(parser)
    args = parser.parse_args(arguments)
    with cli.errors_in_one_line("inference"):
        check_options(args)
        voice = synthesis.Voice.load(args.model, args.config, args.device, half=not args.fp32)
        cli.add_words(voice, args)
        if args.list_speakers:
            for name, number in voice.speakers.items():
                print(f"{number}\t{name}")
            if not voice.speakers:
                print(f"{cli.command('inference')}: this voice has a single speaker", file=sys.stderr)
        elif args.convert is not None:
            convert(voice, args)
        elif args.file is not None:
            speak_lines(voice, args)
        elif args.text == "-" and args.output_raw and not args.ids:
            options = cli.speaking_options(args)
            del options["normalize"]
            write_parts(voice.speak_stream(arriving_text(), **options))
        else:
            written = "".join(arriving_text()) if args.text == "-" else args.text
            text, path = cli.given_text(written, args), args.output or "speech.wav"
            speech = speak_to_file(voice, text, path, args.timings, args.output_raw, **cli.speaking_options(args))
            if speech and args.picture:
                draw(voice, speech, args.picture)


if __name__ == "__main__":
    main()
