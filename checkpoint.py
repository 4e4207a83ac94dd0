"""Files of weights: VITS's names inside, whole or not there at all outside.

A file is a dict with `model`, `optimizer`, `learning_rate` and `iteration`, as VITS code writes it. Weight norm is
stored as `weight_g` and `weight_v`. Reading runs no code from a file.
"""

import logging
import pickle
import re
import shutil
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from files import replacing

logger = logging.getLogger(__name__)

WEIGHT_NORM = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
# Layers that the reference builds and never calls: the second transformer of `pre_conv` flows, and V1's norms.
DEAD = re.compile(r"^flow\.flows\.\d+\.post_transformer\.|^pre_out_norm_[12]\.(gamma|beta)$")
KINDS = {
    "enc_p.emb.weight": "a synthesizer (G)",
    "discriminators.0.conv_post.bias": "a discriminator (D)",
    "dur_proj.weight": "a duration discriminator (DUR)",
}


def reference_name(name: str) -> str:
    """A parameter's name in VITS files."""
    for ours, theirs in WEIGHT_NORM.items():
        name = name.replace(ours, theirs)
    return name


def reference_state_dict(network: nn.Module) -> dict[str, Tensor]:
    """A network's weights under the names of VITS files, in the order of its parameters."""
    return {reference_name(name): value for name, value in unwrap(network).state_dict().items()}


def unwrap(network: nn.Module) -> nn.Module:
    """The network inside DistributedDataParallel."""
    return network.module if isinstance(network, nn.parallel.DistributedDataParallel) else network


def save_checkpoint(
    model: nn.Module, optimizer: Optimizer | None, learning_rate: float, iteration: int, checkpoint_path, **more
) -> None:
    """Write a checkpoint in VITS's format; `more` adds keys. The file appears whole or not at all."""
    content = {
        "model": reference_state_dict(model),
        "iteration": iteration,
        "optimizer": _portable(optimizer.state_dict()) if optimizer is not None else None,
        "learning_rate": learning_rate,
        **more,
    }
    with replacing(checkpoint_path) as unfinished:
        try:
            torch.save(content, unfinished)
        except RuntimeError as error:  # which its writer raises when a disk is full
            free = shutil.disk_usage(unfinished.parent).free // 2**20
            raise OSError(f"{checkpoint_path} cannot be written; {free} MB are free: {error}") from error


def _portable(state: dict) -> dict:
    """An optimizer's state as any machine takes it up: what captured steps need (a rate on the GPU) is left out."""
    groups = [{**group, "lr": float(group["lr"]), "capturable": False} for group in state["param_groups"]]
    return {**state, "param_groups": groups}


class Unreadable(ValueError):
    """A checkpoint's file is missing, cut off, or none."""


def read(path: str | Path) -> dict:
    """Read a checkpoint onto the CPU.

    Raises:
        Unreadable: the file is missing, is no checkpoint, or holds anything but data.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise Unreadable(f"there is no file {path}") from None
    except pickle.UnpicklingError:  # torch's own words advise to run what the file holds
        reason = "it is none, or holds more than weights and numbers"
        raise Unreadable(f"{path} does not load as a checkpoint: {reason}") from None
    except Exception as error:  # torch raises many types for broken files, and all of them mean the same
        reason = str(error).strip().splitlines()
        said = reason[0] if reason else repr(error)
        raise Unreadable(f"{path} does not load as a checkpoint, as if cut off or damaged: {said}") from None
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise Unreadable(f"{path} is no checkpoint of VITS: it holds no dict named 'model'")
    return content


def load_checkpoint(
    checkpoint_path, model: nn.Module, optimizer: Optimizer | None = None
) -> tuple[nn.Module, Optimizer | None, float, int]:
    """Load weights and, where an optimizer is given, its state. Returns model, optimizer, learning rate, iteration.

    Raises:
        ValueError: the file holds another kind of network, another flow, another number of speakers, or whatever
            else does not fit; the message says what it holds and what was expected.
    """
    content = read(checkpoint_path)
    load_weights(model, content["model"], str(checkpoint_path))
    if optimizer is not None and content.get("optimizer") is not None:
        load_optimizer(optimizer, model, content, str(checkpoint_path))
    return model, optimizer, content.get("learning_rate"), content.get("iteration")


def load_weights(model: nn.Module, weights: dict[str, Tensor], where: str) -> None:
    """Fill a network from weights under VITS's names; `where` begins the error message if they do not fit."""
    network = unwrap(model)
    ours = {reference_name(name): value for name, value in network.state_dict().items()}
    weights = {name: value for name, value in weights.items() if name in ours or not DEAD.match(name)}
    problem = _mismatch(ours, weights)
    if problem:
        raise ValueError(f"{where} {problem}")
    with torch.no_grad():
        for name, value in ours.items():
            value.copy_(weights[name])


def load_optimizer(optimizer: Optimizer, model: nn.Module, content: dict, where: str) -> None:
    """Fill an optimizer from a file, matching its entries to parameters by the names in the file's `model`."""
    buffers = {reference_name(name) for name, _ in unwrap(model).named_buffers()}  # spectral norm's vectors
    theirs = [name for name in content["model"] if name not in buffers]
    state = content["optimizer"]
    if len(state["param_groups"]) != 1 or len(state["param_groups"][0]["params"]) != len(theirs):
        raise ValueError(f"{where}: its optimizer belongs to another set of parameters than its model")
    place = {name: i for i, name in enumerate(theirs)}
    ours = [reference_name(name) for name, _ in unwrap(model).named_parameters()]
    moments = {i: state["state"][place[name]] for i, name in enumerate(ours) if place.get(name) in state["state"]}
    # the learning rate is the run's; what the config and the machine decide (betas, fused kernels) stays as it is
    group = {**optimizer.state_dict()["param_groups"][0], "lr": state["param_groups"][0]["lr"]}
    optimizer.load_state_dict({"state": moments, "param_groups": [group]})


def transfer(model: nn.Module, checkpoint_path, section: dict | None = None) -> tuple[int, list[str], list[str]]:
    """Start from another model's weights: take whatever has the same name and shape, leave the rest as it is.

    The flow's are left too where the file's config names another flow than `section`, the config's `model`.

    Returns:
        How many tensors were taken, the names of ours that were not found, and the names in the file not used.
    """
    content = read(checkpoint_path)
    weights = content["model"]
    ours = {reference_name(name): value for name, value in unwrap(model).state_dict().items()}
    fitting = [name for name in ours if name in weights and weights[name].shape == ours[name].shape]
    if _has_other_flow(content, section or {}):
        fitting = [name for name in fitting if not name.startswith("flow.")]
    if not fitting:
        raise ValueError(f"{checkpoint_path} {_mismatch(ours, weights)}; nothing in it could be taken over")
    with torch.no_grad():
        for name in fitting:
            ours[name].copy_(weights[name])
    return len(fitting), [n for n in ours if n not in fitting], [n for n in weights if n not in fitting]


def refuse_other_flow(content: dict, section: dict, where: str) -> None:
    """Raise ValueError if a file's own config has another flow than `section`, a config's `model`.

    The two `mono_layer` flows have the same names and shapes, so that weights alone do not tell them apart.
    """
    if _has_other_flow(content, section):
        theirs, wanted = (_flow_type(model) for model in (content["config"]["model"], section))
        raise ValueError(f"{where} was trained with the flow {theirs!r}; the config's is {wanted!r}")


def _has_other_flow(content: dict, section: dict) -> bool:
    """Whether a file says that it was trained with another transformer flow than `section` names."""
    theirs = _flow_type((content.get("config") or {}).get("model", {}))
    return theirs not in (None, _flow_type(section))


def _flow_type(section: dict) -> str | None:
    """The transformer flow of a config's `model` section, None where there is none."""
    return section.get("transformer_flow_type") if section.get("use_transformer_flows") else None


def step_of(path: str | Path) -> int:
    """The step in a checkpoint's file name, -1 where there is none (`G_best.pth`)."""
    match = re.search(r"_(\d+)\.pth$", Path(path).name)
    return int(match.group(1)) if match else -1


def latest_checkpoint_path(dir_path: str | Path, regex: str = "G_*.pth") -> str:
    """The checkpoint of the highest step in a folder.

    Raises:
        ValueError: there is none.
    """
    paths = [path for path in Path(dir_path).glob(regex) if step_of(path) >= 0]
    if not paths:
        raise ValueError(f"{dir_path} holds no checkpoint {regex}")
    return str(max(paths, key=step_of))


def steps_in(folder: str | Path) -> list[int]:
    """The steps that a folder has a generator's checkpoint of, in order."""
    return sorted({step_of(path) for path in Path(folder).glob("G_*.pth")} - {-1})


def prune(folder: str | Path, keep: int, newest: int) -> None:
    """Delete step checkpoints of a run but the `keep` newest up to step `newest`; later ones are not touched.

    Nor are files of step 0: no run writes them, so somebody put them there to start from.
    """
    past = [step for step in steps_in(folder) if 0 < step <= newest]
    for step in past[:-keep] if keep else []:
        for name in ("G", "D", "DUR"):
            (Path(folder) / f"{name}_{step}.pth").unlink(missing_ok=True)


def _mismatch(ours: dict[str, Tensor], weights: dict[str, Tensor]) -> str:
    """Why a file's weights do not fit a network, or nothing if they do."""
    kind, wanted = _kind(weights), _kind(ours)
    if kind != wanted:
        return f"holds {kind}, and {wanted} is needed"
    if wanted == KINDS["enc_p.emb.weight"]:
        for what, describe in (("flow", _flow), ("speakers", _speakers), ("duration predictor", _predictor)):
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
    if missing or extra:
        return f"does not fit this config: {len(missing)} weights are missing ({', '.join(missing[:3])}), " + (
            f"{len(extra)} are unknown ({', '.join(extra[:3])})"
        )
    return ""


def _kind(weights: dict[str, Tensor]) -> str:
    return next((kind for key, kind in KINDS.items() if key in weights), "no network of VITS")


def _speakers(weights: dict[str, Tensor]) -> str:
    return str(len(weights["emb_g.weight"])) if "emb_g.weight" in weights else "one voice"


def _predictor(weights: dict[str, Tensor]) -> str:
    if "dp.flows.0.m" in weights:
        return "stochastic"
    return "deterministic with noise" if "dp.noise.weight" in weights else "deterministic"


def _flow(weights: dict[str, Tensor]) -> str:
    """The flow type that a file's names belong to."""
    if "flow.flows.0.enc.self_attn_layers.0.conv_q.weight" in weights:
        return "fft"
    if "flow.flows.0.pre_transformer.attn_layers.0.emb_rel_k" in weights:
        return "pre_conv2"
    if "flow.flows.0.pre_transformer.attn_layers.0.conv_q.weight" in weights:
        return "pre_conv"
    if "flow.flows.2.pre_transformer.attn_layers.0.conv_q.weight" in weights:
        return "one of the mono_layer types"
    return "no transformer"
