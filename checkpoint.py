"""Checkpoint files in VITS's format, and saving and resuming a run.

A file is a dict with `model`, `optimizer`, `learning_rate` and `iteration`, as VITS code writes it. Weight norm is
stored as `weight_g` and `weight_v`. Files are written atomically, and reading executes no code from a file.

`torch.save` writes a zip file with a CRC-32 of every record, tensors and numbers alike, which `torch.load` does not
compare. Reading compares it, so that a flipped bit is an error. The check adds nothing to a file, to the time of a save
or to the format, and files that other VITS code has saved with PyTorch are checked too.
"""

import contextlib
import dataclasses
import json
import logging
import operator
import pickle
import re
import shutil
import zipfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import distributed
from config import Config
from files import REST, VOICE, replacing
from text.cleaners import same_cleaners

logger = logging.getLogger(__name__)

WEIGHT_NORM = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
# Layers that the reference builds and never calls: the second transformer of `pre_conv` flows, and the norms of V1
UNUSED = re.compile(r"^flow\.flows\.\d+\.post_transformer\.|^pre_out_norm_[12]\.(gamma|beta)$")
# Weights that speech does not use: the posterior encoder, and in the stochastic duration predictor its posterior and
# the spline that only changes nu. Exported voices, such as those of Piper, lack them.
POSTERIOR = "enc_q."
TRAINING_ONLY = re.compile(r"^enc_q\.|^dp\.post_|^dp\.flows\.1\.")
ZIP = b"PK\x03\x04"  # begins a zip file
# Settings of `data` that a run keeps, because its weights depend on them
OF_THE_DATA = (
    *("sampling_rate", "filter_length", "hop_length", "win_length", "n_mel_channels", "mel_fmin", "mel_fmax"),
    *("use_mel_posterior_encoder", "text_cleaners", "symbols", "extra_symbols", "unicode_form"),
    *("add_blank", "blank_symbol", "begin_symbol", "end_symbol"),
)
FILES = {"generator": "G", "discriminator": "D", "duration_discriminator": "DUR"}  # learner and file name
WEIGHTS = ("model", "ema", *FILES)  # keys of tables of weights
KEYS: dict[str, type] = {
    **dict.fromkeys(("optimizer", "config", "state", *WEIGHTS), dict),
    **dict.fromkeys(("iteration", "step"), int),
}
MONO_LAYER = "one of the mono_layer types"
KINDS = {
    "enc_p.emb.weight": "a synthesizer (G)",
    "discriminators.0.conv_post.bias": "a discriminator (D)",
    "dur_proj.weight": "a duration discriminator (DUR)",
}


@dataclass
class Position:
    """The progress of a run: completed steps, and the epoch and batch that come next."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    best: float = float("inf")  # best value of the measure so far, negative where higher is better
    measure: str = "mel"  # name of that measure
    waited: int = 0  # measurements since the best one
    seconds: float = 0.0  # training time over all starts of the run


class RunState(Protocol):
    """The parts of a run that its checkpoints hold; `trainer.Trainer` is one."""

    config: Config
    device: torch.device
    position: Position
    learners: dict[str, Any]  # of `training.learner.Learner`, by the keys of FILES
    scaler: torch.amp.GradScaler
    scales: bool  # whether the scaler's scale is part of the state, as in fp16


def reference_name(name: str) -> str:
    """Return a parameter's name in VITS files."""
    for ours, theirs in WEIGHT_NORM.items():
        name = name.replace(ours, theirs)
    return name


def reference_state_dict(network: nn.Module) -> dict[str, Tensor]:
    """Return a network's weights under the names of VITS files, in the order of its parameters."""
    return {reference_name(name): value for name, value in unwrap(network).state_dict().items()}


def averaged_state_dict(learner: Any) -> dict[str, Tensor] | None:
    """Return a learner's averaged weights under the names of VITS files, or None if it has none."""
    if learner.average is None:
        return None
    names = (reference_name(name) for name, _ in learner.network.named_parameters())
    return dict(zip(names, learner.average))


def voice_weights(content: dict) -> dict[str, Tensor]:
    """Return the weights of a file that synthesis uses: the averaged ones, if the file has them."""
    return content.get("ema") or content["model"]


def unwrap(network: nn.Module) -> nn.Module:
    """Return the network inside DistributedDataParallel."""
    return network.module if isinstance(network, nn.parallel.DistributedDataParallel) else network


def save_checkpoint(
    model: nn.Module,
    optimizer: Optimizer | None,
    learning_rate: float,
    iteration: int,
    checkpoint_path: str | Path,
    **more: Any,
) -> None:
    """Write a checkpoint in VITS's format, atomically; `more` adds keys. Raises OSError if the disk is full."""
    content = {
        "model": reference_state_dict(model),
        "iteration": iteration,
        "optimizer": _portable(optimizer, unwrap(model), learning_rate) if optimizer is not None else None,
        "learning_rate": learning_rate,
        **more,
    }
    write(checkpoint_path, content)


def write(path: str | Path, content: dict[str, Any]) -> None:
    """Write the content of a checkpoint, atomically. Raises OSError if the disk is full."""
    with replacing(path, durable=True) as unfinished:
        try:
            torch.save(content, unfinished)
        except RuntimeError as error:  # raised by PyTorch when the disk is full
            free = shutil.disk_usage(unfinished.parent).free // 2**20
            raise OSError(f"{path} cannot be written; {free} MB are free: {error}") from error


def _portable(optimizer: Optimizer, network: nn.Module, learning_rate: float) -> dict:
    """Return an optimizer's state as VITS saves it: one group, with the parameters in the order of the network's."""
    state = optimizer.state_dict()
    moments, (first, *others) = state["state"], state["param_groups"]
    if others:
        places = _places(optimizer, network)
        moments = dict(sorted((places[i], values) for i, values in moments.items()))
        first = {**first, "lr": learning_rate, "params": sorted(places)}
    # a learning rate on the GPU and `capturable` are needed by captured steps only
    return {"state": moments, "param_groups": [{**first, "lr": float(first["lr"]), "capturable": False}]}


def _places(optimizer: Optimizer, network: nn.Module) -> list[int]:
    """Return the place among the network's parameters of each parameter of an optimizer of several groups."""
    place = {parameter: i for i, parameter in enumerate(network.parameters())}
    return [place[parameter] for group in optimizer.param_groups for parameter in group["params"]]


class Unreadable(ValueError):
    """A checkpoint's file is missing, truncated or damaged, or is no checkpoint."""


def read(path: str | Path) -> dict:
    """Read a checkpoint onto the CPU, with weights of 16 bits converted to fp32.

    Raises Unreadable if it is missing, damaged, or holds anything but data.
    """
    try:
        if record := damaged_record(path):
            raise zipfile.BadZipFile(f"the checksum of {record} is wrong")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise Unreadable(f"there is no file {path}") from None
    except pickle.UnpicklingError:  # PyTorch's own message advises to execute the file
        reason = "it is no checkpoint, or holds more than weights and numbers"
        raise Unreadable(f"{path} does not load as a checkpoint: {reason}") from None
    except Exception as error:  # PyTorch raises many types for damaged files
        message = (str(error).strip().splitlines() or [repr(error)])[0]
        raise Unreadable(f"{path} does not load as a checkpoint; it is truncated or damaged: {message}") from None
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise Unreadable(f"{path} is no checkpoint of VITS: it has no dict named 'model'")
    for key, kind in KEYS.items():
        if content.get(key) is not None and not isinstance(content[key], kind):
            raise Unreadable(f"{path} is damaged: its {key!r} is not of the type {kind.__name__}")
    with structure_of(path):
        json.dumps(content.get("config"))  # it has only values of JSON
    for key in WEIGHTS:
        weights = content.get(key) or {}
        for name, weight in weights.items():
            if not (isinstance(name, str) and isinstance(weight, Tensor) and weight.layout == torch.strided):
                raise Unreadable(f"{path} is damaged: {name!r} in its {key!r} is no dense tensor")
            weights[name] = weight.float() if weight.dtype in (torch.float16, torch.bfloat16) else weight
    return content


def read_networks(path: Path) -> dict[str, tuple[Path, dict]]:
    """Read a generator's checkpoint. Returns the files and contents of the networks that it holds, by learner.

    That of a voice in a folder (`VOICE`) has its other weights and the discriminators in the file `REST` beside it, if
    that is there. Raises Unreadable as `read`, or if the two files are not of one voice.
    """
    content = read(path)
    networks = {"generator": (path, content)}
    if rest_of(path):
        rest, more = read_rest(path, content.get("step"))
        content["model"] |= more["model"]
        networks |= {name: (rest, {"model": more[name]}) for name in FILES if name in more}
    return networks


def rest_of(path: Path) -> Path | None:
    """Return the file `REST` beside the file `path`, or None if it is missing or `path` is not named `VOICE`."""
    rest = path.with_name(REST)
    return rest if path.name == VOICE and rest.is_file() else None


def read_rest(path: Path, step: int | None) -> tuple[Path, dict]:
    """Return name and content of the second file of a voice, whose first file `path` has the given step.

    Raises Unreadable as `read`, or if the two files are not of one voice.
    """
    rest = path.with_name(REST)
    more = read(rest)
    if more.get("step") != step:
        raise Unreadable(f"{rest} and {path} are not of one voice: their steps differ")
    return rest, more


def read_generator(path: str | Path) -> dict:
    """Read a generator's checkpoint, with all weights of a voice in a folder. Raises Unreadable as `read_networks`."""
    return read_networks(Path(path))["generator"][1]


@contextlib.contextmanager
def structure_of(where: str | Path) -> Iterator[None]:
    """Raise ValueError, beginning with `where`, for a file whose content is not structured as a checkpoint.

    A file may load and hold anything, so that any access to its content may fail.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        if isinstance(error, ValueError) and str(where) in str(error):
            raise
        reason = (str(error).strip().splitlines() or [""])[0]
        raise ValueError(f"{where} is damaged or of another program: {type(error).__name__}: {reason}") from None


def damaged_record(path: str | Path) -> str | None:
    """Return a record of a file of `torch.save` whose checksum does not match its content, or None.

    Files of PyTorch before 1.6 are no zip files, and those saved with `set_crc32_options(False)` have checksums of 0;
    both pass. Raises zipfile.BadZipFile if the structure is damaged.
    """
    with open(path, "rb") as file:
        if file.read(len(ZIP)) != ZIP:
            return None
    with zipfile.ZipFile(path) as records:
        if not any(record.CRC for record in records.infolist()):
            return None
        return records.testzip()


def load_checkpoint(
    checkpoint_path: str | Path, model: nn.Module, optimizer: Optimizer | None = None
) -> tuple[nn.Module, Optimizer | None, float | None, int | None]:
    """Load weights and, if an optimizer is given, its state. Returns model, optimizer, learning rate, iteration.

    Raises ValueError if the file does not fit, for example another kind of network, another flow or another number of
    speakers. The message states what the file holds and what is expected.
    """
    content = read_generator(checkpoint_path)
    with structure_of(checkpoint_path):
        load_weights(model, content["model"], str(checkpoint_path))
        if optimizer is not None and content.get("optimizer") is not None:
            load_optimizer(optimizer, model, content, str(checkpoint_path))
    return model, optimizer, content.get("learning_rate"), content.get("iteration")


def load_weights(model: nn.Module, weights: dict[str, Tensor], where: str, speech: bool = False) -> None:
    """Copy weights under VITS's names into a network; the file may have its weight norms folded.

    With `speech`, weights that only training uses may be missing (`TRAINING_ONLY`); those of the network become 0.
    Raises ValueError, beginning with `where`, if the weights do not fit.
    """
    ours = reference_state_dict(model)
    weights = {name: value for name, value in fitted(weights, ours).items() if name in ours or not UNUSED.match(name)}
    if speech:
        weights = {name: torch.zeros_like(x) for name, x in ours.items() if TRAINING_ONLY.match(name)} | weights
    problem = mismatch(ours, weights)
    if problem:
        raise ValueError(f"{where} {problem}")
    with torch.no_grad():
        for name, value in ours.items():
            value.copy_(weights[name])


def fitted(weights: dict[str, Tensor], names: Collection[str]) -> dict[str, Tensor]:
    """Return weights under the names of VITS files, with each weight norm folded or apart as `names` have it."""
    result = {reference_name(name): value for name, value in weights.items()}
    for name in names:
        whole = name.removesuffix("_g")
        if name not in result and name != whole and whole in result:
            value = result.pop(whole)
            result[name] = norm = torch.linalg.vector_norm(value, dim=tuple(range(1, value.dim())), keepdim=True)
            result[f"{whole}_v"] = torch.where(norm > 0, value, 1)  # any direction where the weights are 0
        elif name not in result and f"{name}_g" in result and f"{name}_v" in result:
            norm, value = result.pop(f"{name}_g"), result.pop(f"{name}_v")
            result[name] = torch._weight_norm(value, norm, 0)
    return result


def load_optimizer(optimizer: Optimizer, model: nn.Module, content: dict, where: str) -> None:
    """Copy an optimizer's state from a file, matched to parameters by the names in the file's `model`."""
    buffers = {reference_name(name) for name, _ in unwrap(model).named_buffers()}  # spectral norm's vectors
    theirs = [name for name in content["model"] if name not in buffers]
    state = content["optimizer"]
    if len(state["param_groups"]) != 1 or len(state["param_groups"][0]["params"]) != len(theirs):
        raise ValueError(f"{where}: the optimizer's parameters do not match those of the model")
    place = {name: i for i, name in enumerate(theirs)}
    ours = [reference_name(name) for name, _ in unwrap(model).named_parameters()]
    moments = {i: state["state"][place[name]] for i, name in enumerate(ours) if place.get(name) in state["state"]}
    for name, parameter in unwrap(model).named_parameters():
        for key, value in state["state"].get(place.get(reference_name(name)), {}).items():
            if key.startswith("exp_avg") and value.shape != parameter.shape:
                raise ValueError(f"{where}: the optimizer's {key} of {name} has shape {list(value.shape)}")
    # the learning rate is the run's; the config and the machine decide the rest (betas, fused kernels)
    groups = optimizer.state_dict()["param_groups"]
    if len(groups) == 1:
        groups = [{**groups[0], "lr": float(state["param_groups"][0]["lr"])}]
    else:
        moments = {i: moments[n] for i, n in enumerate(_places(optimizer, unwrap(model))) if n in moments}
    optimizer.load_state_dict({"state": moments, "param_groups": groups})


def refuse_other_flow(content: dict, section: dict, where: str) -> None:
    """Raise ValueError if a file's config has another flow than `section`, a config's `model`.

    The two `mono_layer` flows have the same names and shapes, so weights alone cannot distinguish them.
    """
    if _other_flow(content, section):
        theirs, wanted = (_flow_type(model) for model in (content["config"]["model"], section))
        raise ValueError(f"{where} was trained with the flow {theirs!r}; the config's is {wanted!r}")


def refuse_other_data(content: dict, section: dict[str, Any], where: str) -> None:
    """Raise ValueError if a run's file was trained with other spectrograms or texts than `section`, a config's `data`.

    Weights of such a file load, but they were trained for the settings in the file. Settings that the file lacks pass.
    """
    theirs = (content.get("config") or {}).get("data", {})
    for name in OF_THE_DATA:
        same = same_cleaners if name == "text_cleaners" else operator.eq
        if name in theirs and not same(theirs[name], section[name]):
            trained, wanted = (shorten(json.dumps(part[name], ensure_ascii=False), 80) for part in (theirs, section))
            raise ValueError(
                f"{where} was trained with data.{name} {trained}, and the config has {wanted}: restore it, or start "
                f"another run with -m and --init-from {where}"
            )


def has_other_flow(content: dict, config: Config) -> bool:
    """Return whether a file's config names another flow than a config."""
    return _other_flow(content, dataclasses.asdict(config.model))


def _other_flow(content: dict, section: dict) -> bool:
    theirs = _flow_type((content.get("config") or {}).get("model", {}))
    return theirs not in (None, _flow_type(section))


def _flow_type(section: dict) -> str | None:
    """Return the transformer flow of a config's `model` section, or None."""
    return section.get("transformer_flow_type") if section.get("use_transformer_flows") else None


class NotFinite(ValueError):
    """Weights are NaN or infinite."""


def save_run(run: RunState, folder: Path, together: bool = True) -> None:
    """Write a checkpoint of every network. The generator's file also holds the run's state and is written last.

    All processes call this, and the main one writes. With `together` false this process writes alone, because others
    do not answer; then random draws restart when several processes resume. Raises NotFinite, before any file is
    written or pruned, if a weight is NaN or infinite.
    """
    mine = all_finite(run), random_state(run.device)
    finite, random = zip(*(distributed.gather(mine) if together else [mine]))
    if not all(finite):
        newest = max(steps_in(folder), default=None)
        good = "no step is saved" if newest is None else f"step {newest} is the newest that is saved"
        raise NotFinite(
            f"the weights at step {run.position.step} contain NaN or infinity and are not saved; {good}. "
            "Resume with a lower train.learning_rate or --precision fp32"
        )
    state = {
        "position": dataclasses.asdict(run.position),
        "scaler": run.scaler.state_dict() if run.scales else None,
        "random": list(random),
    }
    if together and not distributed.is_main():
        return
    step, epoch = run.position.step, run.position.epoch
    for name in reversed(run.learners):
        learner = run.learners[name]
        more = {"config": dataclasses.asdict(run.config), "state": state} if name == "generator" else {}
        if (average := averaged_state_dict(learner)) is not None:
            more["ema"] = average
        path = folder / f"{FILES[name]}_{step}.pth"
        save_checkpoint(learner.network, learner.optimizer, learner.learning_rate, epoch + 1, path, **more)
    prune(folder, run.config.train.keep_checkpoints, step)


def all_finite(run: RunState) -> bool:
    """Return whether the weights of all networks and their averages are finite. Waits for the device."""
    weights: list[Tensor] = []
    for learner in run.learners.values():
        weights += [*unwrap(learner.network).parameters(), *(learner.average or [])]
    return bool(torch.stack([weight.detach().isfinite().all() for weight in weights]).all())


def save_voice(run: RunState, path: Path) -> None:
    """Write the generator with its averaged weights, without its optimizer.

    Weights that are not finite are not written; `save_run` reports them.
    """
    if distributed.is_main() and all_finite(run):
        best = {"config": dataclasses.asdict(run.config), "step": run.position.step}
        learner = run.learners["generator"]
        with learner.averaged() as network:
            save_checkpoint(network, None, learner.learning_rate, run.position.epoch, path, **best)


def resume_run(run: RunState, folder: Path) -> bool:
    """Load a folder's newest checkpoint into a run. Returns whether there was one.

    If a file of the newest step is missing or damaged, the run resumes from the newest step of which all files are
    whole, and a warning names the file. A file of VITS, which holds less of the state, resumes at the start of its
    epoch. Files of step 0, which no run writes, are weights and optimizers to start from. Raises ValueError, naming the
    file, if a file does not fit, or if no step is whole.
    """
    steps = steps_in(folder)
    if not steps:
        return False
    step, contents = _newest_whole(run.learners, folder, steps)
    paths = {name: folder / f"{FILES[name]}_{step}.pth" for name in run.learners}
    if len(set(distributed.gather(step))) > 1:
        raise ValueError(f"processes read checkpoints of different steps in {folder}: is it the same for all of them?")
    content, path = contents["generator"], paths["generator"]
    with structure_of(path):
        refuse_other_flow(content, dataclasses.asdict(run.config.model), str(path))
        refuse_other_data(content, dataclasses.asdict(run.config.data), str(path))
    for name, loaded in contents.items():
        with structure_of(paths[name]):
            _load_learner(run.learners[name], loaded, str(paths[name]))
    with structure_of(path):
        if run.config.train.ema and content.get("ema"):
            _load_average(run.learners["generator"], content["ema"])
        _load_state(run, content, step, path)
    logger.info("resumed from %s at step %d", path, run.position.step)
    return True


def _load_state(run: RunState, content: dict, step: int, path: Path) -> None:
    """Copy the position, the scale and the random state of a generator's file into a run."""
    state = content.get("state")
    if step == 0:
        run.position = Position()
    elif state is None:
        logger.warning("%s was written by another program: random draws and the order of the data restart", path)
        run.position = Position(step=step, epoch=max(content.get("iteration") or 1, 1) - 1)
    else:
        position = Position(**state["position"])
        for field in dataclasses.fields(Position):
            value = getattr(position, field.name)
            if not isinstance(value, str if field.type in ("str", str) else (int, float)):
                raise ValueError(f"{path} is damaged: the run's {field.name} is {type(value).__name__}")
        run.position = position
        if run.scales and state["scaler"]:  # a checkpoint of another precision has no scale
            run.scaler.load_state_dict(state["scaler"])
        if len(state["random"]) == distributed.world_size():
            set_random_state(run.device, state["random"][distributed.rank()])
        else:
            logger.warning("%s was written by %d process(es): random draws restart", path, len(state["random"]))


def _newest_whole(learners: dict[str, Any], folder: Path, steps: list[int]) -> tuple[int, dict[str, dict]]:
    """Return the newest of the steps of which all files can be read, and their contents by learner.

    Files of step 0 are the start of a run and do not replace a later step. Raises Unreadable with the newest step's
    error if no step is whole.
    """
    problem: Unreadable | None = None
    for step in [step for step in reversed(steps) if step or len(steps) == 1]:
        try:
            contents = _read_step(learners, folder, step)
        except Unreadable as error:
            problem = problem or error
            continue
        if problem:
            logger.warning("%s. The run resumes from step %d", problem, step)
        return step, contents
    raise problem or Unreadable(f"{folder} has no checkpoint")


def _read_step(learners: dict[str, Any], folder: Path, step: int) -> dict[str, dict]:
    """Return the contents of a step's files by learner.

    Raises Unreadable if one is damaged, has weights that are not finite, or is needed and missing.
    """
    contents = {}
    for name in learners:
        file = folder / f"{FILES[name]}_{step}.pth"
        if not file.exists() and (step == 0 or name == "duration_discriminator"):
            logger.warning("%s does not exist: that network starts from random weights", file)
            continue
        contents[name] = read(file)
        if not all(weight.isfinite().all() for weight in contents[name]["model"].values()):
            raise Unreadable(f"{file} contains NaN or infinite weights")
    return contents


def _load_learner(learner: Any, content: dict, where: str) -> None:
    load_weights(learner.network, content["model"], where)
    if content.get("optimizer") is not None:
        load_optimizer(learner.optimizer, learner.network, content, where)


def _load_average(learner: Any, weights: dict[str, Tensor]) -> None:
    names = (reference_name(name) for name, _ in learner.network.named_parameters())
    learner.average = [weights[name].to(weight.device) for name, weight in zip(names, learner.weights)]


def random_state(device: torch.device) -> dict[str, Tensor]:
    """Return this process's random state, on the CPU and on its GPU."""
    gpu = {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}
    return {"cpu": torch.get_rng_state(), **gpu}


def set_random_state(device: torch.device, state: dict[str, Tensor]) -> None:
    """Restore the state that `random_state` returned."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def step_of(path: str | Path) -> int:
    """Return the step in a checkpoint's file name, or -1 (`G_best.pth`)."""
    match = re.search(r"_(\d+)\.pth$", Path(path).name)
    return int(match.group(1)) if match else -1


def latest_checkpoint_path(dir_path: str | Path, regex: str = "G_*.pth") -> str:
    """Return the checkpoint of the highest step in a folder. Raises ValueError if there is none."""
    paths = [path for path in Path(dir_path).glob(regex) if step_of(path) >= 0]
    if not paths:
        raise ValueError(f"{dir_path} has no checkpoint {regex}")
    return str(max(paths, key=step_of))


def steps_in(folder: str | Path) -> list[int]:
    """Return the steps of a folder's generator checkpoints, in ascending order."""
    return sorted({step_of(path) for path in Path(folder).glob("G_*.pth")} - {-1})


def prune(folder: str | Path, keep: int, newest: int) -> None:
    """Delete the checkpoints of a run up to step `newest` except for the `keep` newest; 0 keeps all.

    Later ones stay, and so do files of step 0: no run writes these, so a user put them there to start from.
    """
    past = [step for step in steps_in(folder) if 0 < step <= newest]
    for step in past[:-keep] if keep else []:
        for name in FILES.values():
            (Path(folder) / f"{name}_{step}.pth").unlink(missing_ok=True)


def mismatch(ours: dict[str, Tensor], weights: dict[str, Tensor]) -> str:
    """Return why a file's weights, under the names of VITS files, do not fit a network; empty if they do."""
    kind, wanted = _kind(weights), _kind(ours)
    if kind != wanted:
        return f"holds {kind}, but {wanted} is needed"
    if wanted == KINDS["enc_p.emb.weight"]:
        for what, describe in (("flow", flow_of), ("speakers", _speakers), ("duration predictor", _predictor)):
            theirs, needed = describe(weights), describe(ours)
            if theirs != needed:
                return f"does not fit this config: its {what}: {theirs}; the config's: {needed}"
    shapes = [n for n in ours if n in weights and weights[n].shape != ours[n].shape]
    if shapes:
        n = shapes[0]
        return (
            f"does not fit this config: {n} has shape {list(weights[n].shape)}, the config makes {list(ours[n].shape)}"
            f" (and {len(shapes) - 1} more differ)"
        )
    missing, extra = [n for n in ours if n not in weights], [n for n in weights if n not in ours]
    if not (missing or extra):
        return ""
    return (
        f"does not fit this config: {len(missing)} weights are missing ({', '.join(missing[:3])}), "
        f"{len(extra)} are unknown ({', '.join(extra[:3])})"
    )


def _kind(weights: dict[str, Tensor]) -> str:
    return next((kind for key, kind in KINDS.items() if key in weights), "no network of VITS")


def _speakers(weights: dict[str, Tensor]) -> str:
    return str(len(weights["emb_g.weight"])) if "emb_g.weight" in weights else "a single voice"


def _predictor(weights: dict[str, Tensor]) -> str:
    if "dp.flows.0.m" in weights:
        return "stochastic"
    return "deterministic with noise" if "dp.noise.weight" in weights else "deterministic"


def flow_of(weights: dict[str, Tensor]) -> str:
    """Return the type of the flow by the names of its weights. The two `mono_layer` types have the same names."""
    flows = {
        "0.enc.self_attn_layers.0.conv_q.weight": "fft",
        "0.pre_transformer.attn_layers.0.emb_rel_k": "pre_conv2",
        "0.pre_transformer.attn_layers.0.conv_q.weight": "pre_conv",
        "2.pre_transformer.attn_layers.0.conv_q.weight": MONO_LAYER,
    }
    return next((kind for key, kind in flows.items() if f"flow.flows.{key}" in weights), "no transformer")
