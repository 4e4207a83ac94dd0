"""Feed damaged and hostile input to every reader, and print one line of JSON for each kind of input.

A case is good if the reader accepts the input or raises ValueError, OSError or SystemExit with a short message, within
20 seconds of processor time and 4 GB of memory. Cases run in a process of their own, so that a crash or a hang is one
failed case. The exit code is 1 if a case failed, or if no input of a kind was accepted: then nothing was tested.

Examples:
  python tests/fuzz.py --cases 2000                              every kind of input
  python tests/fuzz.py texts --cases 10000 --seed 3              one kind
  python tests/fuzz.py texts --seed 3 --repeat 517               one case again, with its traceback
"""

import contextlib
import copy
import dataclasses
import io
import json
import logging
import multiprocessing
import os
import pickle
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import soundfile
import tiny
import tiny_voices
import torch

import audio
import checkpoint
import cli
import config as configs
import corpus
import preprocess
import trainer
from data_utils import DistributedBucketSampler, SpeechDataset
from importers import transfer
from synthesis import Voice
from synthesis.output import subtitles

SECONDS, MEMORY = 20, 4 << 30  # limits of a case
PATIENCE = 120  # seconds that a case may take in all, for example waiting
LONGEST_MESSAGE = 3000  # characters
RATES = [0, 1, 7, 8000, 16000, 192000, 10**9, 2**31 - 1, 2**32 - 1]
NUMBERS = [
    0,
    1,
    -1,
    2,
    7,
    64,
    0.5,
    True,
    False,
    1e308,
    1e400,
    float("nan"),
    1e-320,
    2**31,
    2**63,
    2**64,
    10**400,
    65537,
]
STRANGE = [
    "",
    " ",
    "\0",
    "|",
    "||",
    "\ufeff",
    "\u202e",
    "\ud800",
    "\U0001f600",
    "²",
    "٣",
    "0",
    "-1",
    "1e400",
    "NaN",
    "..",
    "/",
    "/dev/zero",
]
STRANGE += [
    "../../etc/passwd",
    "~",
    "\r",
    "\n",
    "\t",
    "\x85",
    "\u2028",
    "$(id)",
    "%s%n",
    "{0}",
    "<script>",
    "é" * 300,
    "a" * 5000,
]
PIECES = [
    "Dr.",
    "1.5",
    "1,000,000",
    "$1e9",
    "£½",
    "1st",
    "9" * 400,
    "...",
    "?!",
    "—",
    "\u200d",
    "http://a.b/c?d=e",
    "\n\n",
    "[[h@l'oU]]",
]
PIECES += [
    "<speak>",
    "&lt;",
    "(en)",
    "_:",
    "\x1b[31m",
    "," * 300,
    "'" * 50,
    "ˈ" * 50,
    "Ⅷ",
    "１２",
    "١٬٠٠٠",
    "a\u0301" * 99,
    "中文。",
    "ﷺ",
]
SCRIPTS = [
    (0, 0x80),
    (0x80, 0x370),
    (0x370, 0x700),
    (0x900, 0xE00),
    (0x2000, 0x2100),
    (0x3040, 0xA000),
    (0xD800, 0xF900),
    (0x1D400, 0x1FA00),
]
MARKER = "code_was_executed"

Case = Callable[[Random], object]  # reads one input that is drawn from the generator


# Parts of inputs


def damaged(draw: Random, data: bytes) -> bytes:
    """Return data with one to six changes of bits, bytes, length or order."""
    changed = bytearray(data)
    for _ in range(draw.randint(1, 6)):
        place = draw.randrange(min(len(changed), draw.choice([64, 512, 1 << 30])) or 1)
        end = place + draw.randint(1, 48)
        match draw.randrange(6):
            case 0 if changed:
                changed[min(place, len(changed) - 1)] ^= 1 << draw.randrange(8)
            case 1:
                changed[place : place + 4] = struct.pack(
                    "<I", draw.choice([0, 2**31 - 1, 2**32 - 1, draw.getrandbits(32)])
                )
            case 2:
                del changed[place:end]
            case 3:
                changed[place:place] = draw.randbytes(end - place)
            case 4:
                changed[place:place] = changed[:end]
            case _:
                del changed[draw.choice([place, len(changed) // 2]) :]
    return bytes(changed)


def text(draw: Random, pieces: int = 6) -> str:
    """Return words, strange pieces, or characters of one script or of all."""
    match draw.randrange(4):
        case 0:
            return draw.choice([*STRANGE, *tiny.TEXTS])
        case 1:
            return draw.choice(["", " ", "."]).join(
                draw.choice([*PIECES, *STRANGE]) for _ in range(draw.randint(1, pieces))
            )
        case 2:
            low, high = draw.choice([*SCRIPTS, (0, 0x110000)])
            return "".join(chr(draw.randrange(low, high)) for _ in range(draw.randint(0, 8 * pieces)))
        case _:
            return " ".join(
                draw.choice(["the", "Wolf", "1999", "Mr.", *PIECES]) for _ in range(draw.randint(1, 3 * pieces))
            )


def value(draw: Random, like: Any = None, depth: int = 0) -> Any:
    """Return a value of JSON, mostly of the kind of `like`."""
    if isinstance(like, dict) and like and draw.random() < 0.8:
        key = draw.choice(list(like))
        return {**like, draw.choice([key, text(draw, 1)]): value(draw, like[key], depth + 1)}
    if isinstance(like, list) and like and draw.random() < 0.8:
        place = draw.randrange(len(like))
        return [*like[:place], value(draw, like[place], depth + 1), *like[place + draw.randint(0, 1) :]]
    if isinstance(like, (int, float)) and draw.random() < 0.7:
        return draw.choice([*NUMBERS, like + 1, -like, like * 2, like * 1e6])
    if isinstance(like, str) and draw.random() < 0.7:
        return text(draw, 2)
    simple = [None, text(draw, 1), draw.choice(NUMBERS)]
    return draw.choice(
        simple if depth > 3 else [*simple, [], {}, [value(draw, None, depth + 1)], {"a": value(draw, None, depth + 1)}]
    )


def with_changes(draw: Random, content: Any, values: Callable[[], Any]) -> Any:
    """Return nested dicts and lists in which one to three entries at any depth are replaced or missing."""
    content = copy.deepcopy(content)
    for _ in range(draw.randint(1, 3)):
        node: Any = content
        while True:
            keys = list(node) if isinstance(node, dict) else range(len(node))
            if not keys:
                break
            key = draw.choice(keys)
            if isinstance(node[key], (dict, list)) and node[key] and draw.random() < 0.75:
                node = node[key]
            elif draw.random() < 0.3:
                del node[key]
                break
            else:
                node[key] = values()
                break
    return content


# Kinds of input. Each function prepares a folder, which is the working directory, and returns the case.


def filelists(folder: Path) -> Case:
    """Filelists, read by the check, the dataset, the table of speakers and preprocess.py."""
    tiny.write_corpus(folder, 4, 2)
    data = tiny.config().data

    def case(draw: Random) -> object:
        lines = []
        for _ in range(draw.choice([0, 1, 1, 2, 4])):
            path = draw.choice(
                ["train0.wav", "train1.wav", "val0.wav", "val.txt", "missing.wav", text(draw, 1), "x.raw"]
            )
            speaker = draw.choice([[], [], [text(draw, 1)], [str(draw.randint(-1, 3))]])
            lines.append("|".join([path, *speaker, *draw.choice([[], [text(draw)], [draw.choice(tiny.TEXTS)]])]))
        content = (
            draw.choice(["\n", "\r\n", "\r"]).join(lines).encode(draw.choice(["utf-8"] * 15 + ["utf-16"]), "replace")
        )
        Path("x.raw").write_bytes(draw.randbytes(100))
        Path("list.txt").write_bytes(damaged(draw, content) if draw.random() < 0.2 else content)
        cleaner = draw.choice(["english_cleaners2", "basic_cleaners", "phonemes_de", "missing"])
        settings = dataclasses.replace(
            data, n_speakers=draw.choice([0, 0, 2]), cleaned_text=draw.random() < 0.5, text_cleaners=[cleaner]
        )
        index = str(draw.randint(-1, 3))
        match draw.randrange(5):
            case 0:
                return corpus.main(["list.txt"])
            case 1:
                return corpus.check_corpus(corpus.read_filelist("list.txt"), settings)
            case 2:
                return corpus.speaker_table([corpus.read_filelist("list.txt")] * 2, settings.n_speakers)
            case 3:
                dataset = SpeechDataset("list.txt", settings)
                DistributedBucketSampler(dataset, 2, [0, 160, 400])
                return [dataset[i] for i in range(len(dataset))]
            case _:
                return preprocess.main(
                    ["--filelists", "list.txt", "--jobs", "1", "--text-index", index, "--text-cleaners", cleaner]
                )

    return case


def config_files(folder: Path) -> Case:
    """Configs: loaded, saved, loaded again, and their networks built if they are small."""
    whole = dataclasses.asdict(tiny.config())
    with torch.device("meta"):  # the first network on it takes seconds
        trainer.build_generator(tiny.config())
    special = [
        "[" * 100_000,
        '{"train":' * 50_000,
        '{"train": {"seed": ' + "9" * 5000 + "}}",
        "",
        "null",
        "[]",
        "1",
        '{"a": 1, "a": 2}',
    ]

    def case(draw: Random) -> object:
        content = json.dumps(with_changes(draw, whole, lambda: value(draw, draw.choice([1, 0.5, "a", [1], {}, None]))))
        if draw.random() < 0.05:
            content = draw.choice(special)
        data = content.encode("utf-16" if draw.random() < 0.03 else "utf-8", "replace")
        Path("config.json").write_bytes(damaged(draw, data) if draw.random() < 0.15 else data)
        config = configs.load("config.json")
        configs.save(config, "saved.json")
        assert configs.load("saved.json") == config, "the saved config differs from the loaded one"
        sizes = [*configs._numbers(list(dataclasses.asdict(config.model).values())), config.data.filter_length]
        if draw.random() < 0.03 and max(*sizes, config.data.n_mel_channels, config.data.n_speakers) <= 1024:
            with torch.device("meta"):
                return trainer.build_generator(config), trainer.build_discriminator(config)

    return case


def recordings(folder: Path) -> Case:
    """Recordings in every format of libsndfile, read by each function that reads them."""
    data, samples, seeds = tiny.config().data, tiny.speech(0.2, 3), []
    kinds = [
        ("wav", "PCM_16"),
        ("wav", "FLOAT"),
        ("wav", "DOUBLE"),
        ("wav", "ULAW"),
        ("wav", "IMA_ADPCM"),
        ("flac", "PCM_16"),
    ]
    kinds += [
        ("ogg", "VORBIS"),
        ("ogg", "OPUS"),
        ("mp3", "MPEG_LAYER_III"),
        ("aiff", "PCM_16"),
        ("au", "PCM_16"),
        ("caf", "PCM_16"),
    ]
    for suffix, subtype in kinds:
        soundfile.write(f"seed.{suffix}", samples, tiny.RATE, subtype)
        seeds.append((suffix, Path(f"seed.{suffix}").read_bytes()))
    waves = [
        np.zeros(0),
        np.zeros(1),
        np.full(500, np.nan),
        np.full(500, np.inf),
        np.full(9000, 3e38),
        samples * 1e-9,
        samples * 32768,
    ]

    def case(draw: Random) -> object:
        suffix, content = draw.choice(seeds)
        match draw.randrange(6):
            case 0:
                content = draw.randbytes(draw.choice([0, 1, 12, 44, 1000]))
            case 1:
                suffix = draw.choice(["raw", "wav", "mp3", "sd2", "txt", "flac", "RAW"])
            case 2:
                suffix, bits, channels = (
                    "wav",
                    draw.choice([0, 8, 13, 16, 24, 32, 64]),
                    draw.choice([0, 1, 2, 1024, 65535]),
                )
                rate, kind = draw.choice(RATES), draw.choice([0, 1, 3, 6, 85, 0xFFFE])
                fields = struct.pack(
                    "<HHIIHH", kind, channels, rate, draw.getrandbits(32), channels * bits // 8 & 0xFFFF, bits
                )
                content = (
                    b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0"
                    + fields
                    + b"data"
                    + struct.pack("<I", draw.choice([2000, 2**32 - 1]))
                    + draw.randbytes(2000)
                )
            case 3:
                buffer = io.BytesIO()
                soundfile.write(
                    buffer,
                    draw.choice(waves).astype(np.float32),
                    draw.choice([1, 7, 16000, 10**6, 10**9]),
                    "FLOAT",
                    format="WAV",
                )
                suffix, content = "wav", buffer.getvalue()
            case _:
                content = damaged(draw, content)
        name = f"x.{suffix}"
        Path(name).write_bytes(content)
        Path("x.txt").write_text(f"{name}|{tiny.TEXTS[0]}\n", "utf-8")
        corpus.check_corpus(corpus.read_filelist("x.txt"), data)
        length = audio.audio_length(name, tiny.RATE)
        assert len(audio.load_audio(name, tiny.RATE)) == length, "audio_length and load_audio differ"
        return SpeechDataset("x.txt", data)[0]

    return case


def texts(folder: Path) -> Case:
    """Texts to speak, with several cleaners; some are synthesized."""
    conf = tiny_voices.settings()
    voice, voices = Voice(tiny_voices.network(conf), conf), []
    for name in (
        "english_cleaners2",
        "basic_cleaners",
        "english_characters",
        "phonemes_de",
        "phonemes_cmn",
        "phonemes_ar",
    ):
        voices.append(copy.copy(voice))
        voices[-1].data = dataclasses.replace(conf.data, text_cleaners=[name])

    def case(draw: Random) -> object:
        voice, written, phonemes = draw.choice(voices), text(draw, 8), draw.random() < 0.2
        tokens = [token for line in voice.read(written, phonemes=phonemes) for token in line.tokens]
        if len(tokens) < 300 and draw.random() < 0.15:
            return subtitles(voice.speak(written, phonemes=phonemes, seed=1))
        return tokens

    return case


def options(folder: Path) -> Case:
    """Options of speaking, and lists of token ids."""
    conf = tiny_voices.settings(speakers={"anna": 0, "bo": 1})
    voice = Voice(tiny_voices.network(conf), conf)
    names = ["noise_scale", "noise_scale_w", "length_scale", "seed", "pause"]
    spoken = [
        "ten tones.",
        [1, 2, 3],
        [0],
        [],
        [10**9],
        [-1],
        [2**63],
        [2**70],
        range(3),
        np.array([5, 6]),
        (7, 8),
        [177],
        [178],
        "",
        None,
    ]
    numbers = [*NUMBERS, 0.667, 99.9, -float("inf"), -5]

    def case(draw: Random) -> object:
        given = {name: draw.choice(numbers) for name in draw.sample(names, draw.randint(1, 2))}
        given["speaker"] = draw.choice([0, 1, "anna", "0", 2, -1, 1.5, "", "²", "\ud800", None, [0], True])
        speech = voice.speak(draw.choice(spoken), **given)
        assert np.isfinite(speech.audio).all(), "audio is not finite"

    return case


class Program:
    """An object whose unpickling would execute a command."""

    def __reduce__(self) -> tuple:
        """Return the command."""
        return os.system, (f"touch {MARKER}",)


def checkpoints(folder: Path) -> Case:
    """Checkpoints: damaged, of another structure, or with code, read by synthesis, resuming, transfer and loading."""
    conf = tiny_voices.settings(flow=None, posterior_layers=1, discriminator_channels=64)  # few tensors
    run = trainer.Trainer(conf, torch.device("cpu"))
    run.position.step = 5
    Path("whole").mkdir()
    Path("mutant").mkdir()
    checkpoint.save_run(run, Path("whole"))
    files = {name: Path(f"whole/{name}_5.pth").read_bytes() for name in "GD"}
    contents = {name: torch.load(io.BytesIO(data), weights_only=True) for name, data in files.items()}
    sparse = torch.sparse_coo_tensor(torch.zeros(1, 1, dtype=torch.long), torch.ones(1), (3,))
    values = [
        None,
        0,
        -1,
        True,
        1e400,
        10**30,
        "x",
        "²",
        b"x",
        [],
        {},
        [None],
        {0: None},
        {"a": 1},
        torch.zeros(0),
        torch.zeros(3),
    ]
    values += [
        torch.tensor(float("nan")),
        torch.zeros(2, 2, dtype=torch.complex64),
        torch.zeros(3, dtype=torch.int8),
        sparse,
    ]

    def case(draw: Random) -> object:
        name = draw.choice("GGD")
        for other, data in files.items():
            Path(f"mutant/{other}_5.pth").write_bytes(data)
        path = Path(f"mutant/{name}_5.pth")
        match draw.randrange(6):
            case 0:
                path.write_bytes(damaged(draw, files[name]))
            case 1:
                place = draw.choice([[], ["model"], [draw.choice(list(contents[name]))]])
                content = Program() if not place else {**contents[name], place[0]: Program()}
                if place == ["model"]:
                    content["model"] = {
                        **contents[name]["model"],
                        draw.choice(list(contents[name]["model"])): Program(),
                    }
                if draw.random() < 0.3:
                    path.write_bytes(pickle.dumps(Program(), draw.randint(0, 5)))
                else:
                    torch.save(content, path, _use_new_zipfile_serialization=draw.random() < 0.5)
            case 2:
                with zipfile.ZipFile(io.BytesIO(files[name])) as old, zipfile.ZipFile(path, "w") as new:
                    for record in old.namelist():
                        data = old.read(record)
                        if draw.random() < 0.98:
                            new.writestr(
                                record, damaged(draw, data) if "data.pkl" in record and draw.random() < 0.6 else data
                            )
            case _:
                torch.save(with_changes(draw, contents[name], lambda: draw.choice(values)), path)
        learner = run.learners["generator" if name == "G" else "discriminator"]
        try:
            match draw.randrange(4):
                case 0:
                    return Voice.load(path).speak([1, 2, 3], seed=1)
                case 1:
                    return checkpoint.resume_run(run, Path("mutant"))
                case 2:
                    content = checkpoint.read(path)
                    with checkpoint.structure_of(path):
                        return transfer.plan(learner.network, content, conf, str(path))
                case _:
                    return checkpoint.load_checkpoint(path, learner.network, learner.optimizer)
        finally:
            if Path(MARKER).exists():
                Path(MARKER).unlink()
                raise RuntimeError("code of a file was executed")

    return case


def onnx_files(folder: Path) -> Case:
    """ONNX files: damaged, with other metadata, or with another graph, that speak."""
    import onnx
    import onnxruntime

    import export_onnx
    import infer_onnx

    conf = tiny_voices.settings()
    with contextlib.redirect_stdout(io.StringIO()):
        export_onnx.export(Voice(tiny_voices.network(conf), conf), Path("voice.onnx"))
    whole, model = Path("voice.onnx").read_bytes(), onnx.load("voice.onnx")
    make = onnxruntime.SessionOptions

    def unoptimized() -> Any:  # optimizing the graph is most of the time
        made = make()
        made.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        return made

    onnxruntime.SessionOptions = unoptimized
    values = [
        "",
        "0",
        "-1",
        "x",
        "null",
        "[]",
        "{}",
        "1e400",
        "NaN",
        "9" * 5000,
        '["a"]',
        '{"a": "b"}',
        '{"a": 1}',
        "[" * 100_000,
        "\0",
        "1.5",
        "2147483648",
        "²",
        '[["a"]]',
        '{"x": null}',
    ]

    def case(draw: Random) -> object:
        data = draw.randbytes(draw.choice([0, 1, 100, 3000]))
        kind = draw.randrange(6)
        if kind == 0:
            data = damaged(draw, whole)
        elif kind > 1:
            changed = onnx.ModelProto()
            changed.CopyFrom(model)
            node, constant = draw.choice(changed.graph.node), draw.choice(changed.graph.initializer)
            if kind > 2:
                for _ in range(draw.randint(1, 2)):
                    draw.choice(changed.metadata_props).value = draw.choice(
                        [*values, text(draw, 1).encode("utf-8", "replace").decode()]
                    )
            elif draw.random() < 0.4 and node.input:
                node.input[draw.randrange(len(node.input))] = draw.choice(["", "input", "missing"])
            elif draw.random() < 0.5:
                node.op_type = draw.choice(["Relu", "Loop", "If", "Missing", "Add"])
            elif constant.dims:
                constant.dims[0] = draw.choice([0, -1, 2**40, constant.dims[0] + 1])
            data = changed.SerializeToString()
        Path("x.onnx").write_bytes(data)
        return infer_onnx.OnnxVoice("x.onnx", threads=1).speak("ten tones.")

    return case


KINDS: dict[str, Callable[[Path], Case]] = {
    "filelists": filelists,
    "configs": config_files,
    "recordings": recordings,
    "texts": texts,
    "options": options,
    "checkpoints": checkpoints,
    "onnx": onnx_files,
}


# The process of cases


def fault_of(error: BaseException) -> str | None:
    """Return what is wrong with the way in which a case ended, or None."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if str(tiny.ROOT) in frame.filename]
    where = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames[-3:]))
    if isinstance(error, SystemExit):
        return None
    if not isinstance(error, (ValueError, OSError)):
        return f"{type(error).__name__} at {where}"
    if not str(error).strip() or len(str(error)) > LONGEST_MESSAGE:
        return f"{type(error).__name__} with {len(str(error))} characters at {where}"
    return None


def run_cases(kind: str, seed: int, first: int, count: int, current: Any, accepted: Any, faults: Any) -> None:
    """Run cases in this process, which ends at the first that takes too long.

    `current` is the number of the case, and `accepted` counts the inputs that raised no error.
    """
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        case = KINDS[kind](Path(folder))
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        for i in range(first, count):
            current.value = i
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            signal.alarm(PATIENCE)
            try:
                case(Random(f"{seed} {kind} {i}"))
                accepted.value += 1
            except BaseException as error:
                if fault := fault_of(error):
                    faults.put((i, fault, str(error)[:200]))
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.alarm(0)
        os.chdir(tiny.ROOT)
    current.value = count


def fuzz(kind: str, seed: int, count: int) -> dict[str, Any]:
    """Run the cases of one kind. Returns their number, the accepted ones, the failed ones by fault, and the seconds."""
    context, began = multiprocessing.get_context("fork"), time.monotonic()
    current, accepted, faults = context.Value("q", 0), context.Value("q", 0), context.SimpleQueue()
    found: list[tuple[int, str, str]] = []
    while current.value < count:
        arguments = (kind, seed, current.value, count, current, accepted, faults)
        process = context.Process(target=run_cases, args=arguments)
        process.start()
        while process.is_alive() or not faults.empty():
            process.join(0.05)
            while not faults.empty():
                found.append(faults.get())
        if process.exitcode and current.value < count:
            end = (
                "takes too long"
                if process.exitcode in (-signal.SIGALRM, -signal.SIGPROF)
                else f"ends the process: {process.exitcode}"
            )
            found.append((current.value, end, ""))
            current.value += 1
    examples = {fault: f"case {i}: {message}" for i, fault, message in reversed(found)}
    counts = Counter(fault for _, fault, _ in found)
    listed = {fault: f"{counts[fault]} times, {examples[fault]}" for fault in counts}
    return {
        "kind": kind,
        "cases": count,
        "seed": seed,
        "accepted": accepted.value,
        "failed": len(found),
        "faults": listed,
        "seconds": round(time.monotonic() - began),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program."""
    parser = cli.Parser(__doc__)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)} (default: all)")
    parser.add_argument("--cases", type=int, default=2000, metavar="N", help="number of cases of each kind")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="seed of all draws")
    parser.add_argument("--repeat", type=int, metavar="N", help="run only this case, in this process")
    args = parser.parse_args(argv)
    if unknown := set(args.kinds) - set(KINDS):
        parser.error(f"no kind {unknown.pop()!r}; the kinds are {', '.join(KINDS)}")
    if args.repeat is not None:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            return print(KINDS[args.kinds[0]](Path(folder))(Random(f"{args.seed} {args.kinds[0]} {args.repeat}")))
    failed = 0
    for kind in args.kinds or KINDS:
        result = fuzz(kind, args.seed, args.cases)
        failed += result["failed"] or not result["accepted"]
        print(json.dumps(result, ensure_ascii=False), flush=True)
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
