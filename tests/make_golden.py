"""Compute the files of tests/golden again with the reference implementation, p0p4k/vits2_pytorch.

The inputs, settings and names in the committed files are kept, and all outputs are computed on the CPU in fp32. All
random draws are zero, and parameters have the values of `golden_parameters`. The reference's configs are copied; those
in golden/configs/vits come from VITS and are kept. Needs the packages of requirements-dev.txt and a C compiler.

Examples:
  git clone https://github.com/p0p4k/vits2_pytorch /tmp/reference
  git -C /tmp/reference checkout 1f4f379
  python tests/make_golden.py /tmp/reference --check    compare with the committed files
  python tests/make_golden.py /tmp/reference            write the files
"""

import argparse
import importlib
import json
import shutil
import subprocess
import sys
import tempfile
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from golden_parameters import fill

GOLDEN = Path(__file__).parent / "golden"
LATENTS = ("z", "z_p", "m_p", "logs_p", "m_q", "logs_q")
TOLERANCE = 1e-4  # relative to the largest value of an array; the inverse of some flows is ill-conditioned

Case = dict[str, Any]


def prepare(reference: Path, build: str) -> None:
    """Make the reference importable, compile its alignment search in the folder `build`, and zero all random draws."""
    import espeakng_loader
    from phonemizer.backend.espeak.wrapper import EspeakWrapper

    sys.path.insert(0, str(reference))
    EspeakWrapper.set_library(espeakng_loader.get_library_path())
    EspeakWrapper.set_data_path(espeakng_loader.get_data_path())
    shutil.copy(reference / "monotonic_align/core.pyx", build)
    cythonize = ("-m", "Cython.Build.Cythonize", "--inplace", "--quiet", "core.pyx")
    subprocess.run([sys.executable, *cythonize], cwd=build, check=True, capture_output=True)
    sys.path.insert(0, build)
    package = "monotonic_align.monotonic_align"  # where the reference's setup.py installs the extension
    sys.modules |= {package: types.ModuleType(package), f"{package}.core": importlib.import_module("core")}
    warnings.simplefilter("ignore")  # the reference uses deprecated functions of PyTorch
    for name in ("randn", "randn_like", "rand"):
        draw = getattr(torch, name)
        setattr(torch, name, lambda *a, draw=draw, **k: torch.zeros_like(draw(*a, **k)))


def synthesizer(case: Case) -> Case:
    """Return the outputs of a small `SynthesizerTrn`: training, gradients, inference, flow and voice conversion."""
    losses, models = map(importlib.import_module, ("losses", "models"))
    net = fill(models.SynthesizerTrn(**case["config"])).eval()
    x, x_lengths, y, y_lengths, sid = (case.get(key) for key in ("x", "x_lengths", "y", "y_lengths", "sid"))
    o, l_length, attn, ids_slice, _, y_mask, latents, (hidden, logw, target) = net(x, x_lengths, y, y_lengths, sid)
    z, z_p, m_p, logs_p, _, logs_q = latents
    kl = losses.kl_loss(z_p, logs_q, m_p, logs_p, y_mask)
    loss = o.square().mean() + l_length.sum() + kl + logw.square().mean()
    loss.backward()
    found = {"o": o, "l_length": l_length, "attn": attn, "ids_slice": ids_slice, **dict(zip(LATENTS, latents))}
    found |= {"hidden": hidden, "logw": logw, "logw_target": target}
    found = {f"train_{name}": value for name, value in found.items()} | {"grad_loss": loss}
    found |= {f"grad_{name}": parameter.grad for name, parameter in net.named_parameters()}
    with torch.no_grad():
        g = None if sid is None else net.emb_g(sid).unsqueeze(-1)
        found["flow_inverse"] = net.flow(z_p, y_mask, g=g, reverse=True)
        o, attn, _, (z, z_p, _, _) = net.infer(x, x_lengths, sid, noise_scale=0.5, length_scale=1.3, noise_scale_w=0.7)
        found |= {"infer_o": o, "infer_attn": attn, "infer_z": z, "infer_z_p": z_p}
        if "vc_sid_tgt" in case:
            found["vc_o"], _, _ = net.voice_conversion(y, y_lengths, sid, case["vc_sid_tgt"])
    return found


@torch.no_grad()
def discriminators(case: Case) -> Case:
    """Return scores and losses of the waveform discriminators."""
    losses, models = map(importlib.import_module, ("losses", "models"))
    real, fake, maps_r, maps_g = fill(models.MultiPeriodDiscriminator()).eval()(case["real"], case["fake"])
    found = {"disc_loss": losses.discriminator_loss(real, fake)[0], "gen_loss": losses.generator_loss(fake)[0]}
    found |= {f"real_score_{i}": score for i, score in enumerate(real)}
    found |= {f"fake_score_{i}": score for i, score in enumerate(fake)}
    return found | {"feature_loss": losses.feature_loss(maps_r, maps_g)}


def both_duration_discriminators() -> dict[str, torch.nn.Module]:
    """Build the two duration discriminators with 16 channels."""
    models = importlib.import_module("models")
    return {f"v{i}": getattr(models, f"DurationDiscriminatorV{i}")(16, 16, 3, 0.1) for i in (1, 2)}


@torch.no_grad()
def duration_discriminators(case: Case) -> Case:
    """Return the scores of both duration discriminators."""
    found = {}
    for version, network in both_duration_discriminators().items():
        scores = fill(network).eval()(*(case[name] for name in ("hidden", "mask", "dur_real", "dur_hat")))
        for kind, score in zip(("real", "fake"), scores):
            found[f"{version}_{kind}"] = score[0] if isinstance(score, list) else score  # V2 returns lists
    return found


def mel(case: Case) -> Case:
    """Return linear and mel spectrograms."""
    reference = importlib.import_module("mel_processing")
    n_fft, hop, win, rate, bands = (case["config"][key] for key in ("n_fft", "hop", "win", "sr", "n_mels"))
    spec = reference.spectrogram_torch(case["wav"], n_fft, rate, hop, win)
    found = {"spec": spec, "mel_from_spec": reference.spec_to_mel_torch(spec, n_fft, bands, rate, 0.0, None)}
    for name, limits in {"mel": (0.0, None), "mel_20_7600": (20.0, 7600.0)}.items():
        found[name] = reference.mel_spectrogram_torch(case["wav"], n_fft, bands, rate, hop, win, *limits)
    return found


def spline(case: Case) -> Case:
    """Return the rational quadratic spline of `x` and its inverse."""
    transform = importlib.import_module("transforms").piecewise_rational_quadratic_transform
    inputs = [case[name] for name in ("x", "widths", "heights", "derivatives")]
    tails = {"tails": "linear", "tail_bound": case["config"]["tail_bound"]}
    forward, inverse = (transform(*inputs, inverse=inverse, **tails) for inverse in (False, True))
    return dict(zip(("y", "logabsdet", "inverse", "inverse_logabsdet"), (*forward, *inverse)))


def alignment(case: Case) -> Case:
    """Return the best monotonic paths."""
    return {"path": importlib.import_module("monotonic_align").maximum_path(case["value"], case["mask"])}


PARTS = {f.__name__: f for f in (discriminators, duration_discriminators, mel, spline, alignment)}


def read_case(path: Path) -> Case:
    """Return the arrays of a file as tensors and its `config` as a dict."""
    arrays = dict(np.load(path))
    settings = {"config": json.loads(str(arrays.pop("config")))} if "config" in arrays else {}
    return settings | {name: torch.from_numpy(value) for name, value in arrays.items()}


def shapes(network: torch.nn.Module) -> list:
    """Return names and shapes of a network's weights, in their order."""
    return [[name, list(value.shape)] for name, value in network.state_dict().items()]


def json_files(reference: Path) -> dict[str, str]:
    """Return the contents of the JSON files by their paths in `GOLDEN`."""
    models, text = map(importlib.import_module, ("models", "text"))
    cases = {path.stem: read_case(path) for path in sorted(GOLDEN.glob("*.npz")) if path.stem not in PARTS}
    order = json.loads((GOLDEN / "state_dict_small.json").read_text("utf-8"))
    small = {name: shapes(models.SynthesizerTrn(**cases[name]["config"])) for name in order if name in cases}
    small["mpd"] = shapes(models.MultiPeriodDiscriminator())
    small |= {f"dur_{name}": shapes(network) for name, network in both_duration_discriminators().items()}
    files = {"state_dict_small.json": json.dumps(small), "symbols.json": dump(text.symbols)}
    full = json.loads((GOLDEN / "state_dict_full.json").read_text("utf-8"))
    for path in sorted((reference / "configs").glob("*.json")):
        files[f"configs/vits2_pytorch/{path.name}"] = path.read_text("utf-8")
        if path.stem in full:
            train, data, model = json.loads(path.read_text("utf-8")).values()
            bands = 80 if data.get("use_mel_posterior_encoder") else data["filter_length"] // 2 + 1
            frames = train["segment_size"] // data["hop_length"]
            network = models.SynthesizerTrn(len(text.symbols), bands, frames, n_speakers=data["n_speakers"], **model)
            full[path.stem] = shapes(network)
    speech = json.loads((GOLDEN / "text.json").read_text("utf-8"))
    for case in speech["cases"]:
        case |= {name: getattr(text.cleaners, name)(case["text"]) for name in case if hasattr(text.cleaners, name)}
        case["ids_english_cleaners2"] = text.text_to_sequence(case["text"], ["english_cleaners2"])
    separator = ",\n  "
    head = f' "made_with": {dump(speech["made_with"])},\n "symbols": {dump("".join(text.symbols))},\n'
    files["text.json"] = f'{{\n{head} "cases": [\n  {separator.join(map(dump, speech["cases"]))}\n ]\n}}\n'
    return files | {"state_dict_full.json": json.dumps(full)}


def dump(value: Any) -> str:
    """Return a value as JSON on one line, readable in any alphabet."""
    return json.dumps(value, ensure_ascii=False)


def difference(old: torch.Tensor, new: torch.Tensor) -> float:
    """Return the largest difference relative to the largest value; infinity for another shape."""
    if old.shape != new.shape:
        return float("inf")
    return ((old - new).abs().max() / old.abs().max().clamp_min(1e-12)).item()


def main() -> None:
    """Compute every file, and write it or compare it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reference", type=Path, metavar="FOLDER", help="checkout of the reference")
    parser.add_argument("--check", action="store_true", help="compare with the committed files and write nothing")
    args = parser.parse_args()
    wrong = []
    with tempfile.TemporaryDirectory() as build:
        prepare(args.reference.resolve(), build)
        for path in sorted(GOLDEN.glob("*.npz")):
            case = read_case(path)
            found = PARTS.get(path.stem, synthesizer)(case)
            new = {name: found[name].detach() for name in case if name in found}  # of the gradients, the committed ones
            largest, name = max((difference(case[name], value), name) for name, value in new.items())
            print(f"{path.name}: {len(new)} outputs, largest relative difference {largest:.1e} in {name}")
            if largest > TOLERANCE:
                wrong.append(path.name)
            if not args.check:
                arrays = {k: json.dumps(v) if k == "config" else new.get(k, v).numpy() for k, v in case.items()}
                np.savez_compressed(path, **arrays)
        for name, content in json_files(args.reference).items():
            same = json.loads((GOLDEN / name).read_text("utf-8")) == json.loads(content)
            print(f"{name}: {'equal' if same else 'differs'}")
            wrong += [] if same else [name]
            if not args.check:
                (GOLDEN / name).write_text(content, "utf-8")
    if args.check and wrong:
        sys.exit(f"make_golden.py: other numbers than the committed ones: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
