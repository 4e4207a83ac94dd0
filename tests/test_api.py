"""Names that old notebooks, configs and scripts use, registries, the import graph, and imports without side effects."""

import ast
import dataclasses
import graphlib
import importlib.util
import inspect
import json
import typing

import pytest
import tiny
import torch

import config as configs
import models
from conditions import CONDITIONS
from decoders import DECODERS
from discriminators import DURATION_DISCRIMINATORS
from flows import FLOWS
from modules import RESBLOCKS
from trainer import Trainer

SIGNATURES = {
    "models.SynthesizerTrn": "n_vocab spec_channels segment_size inter_channels hidden_channels filter_channels n_heads"
    " n_layers kernel_size p_dropout resblock resblock_kernel_sizes resblock_dilation_sizes upsample_rates"
    " upsample_initial_channel upsample_kernel_sizes n_speakers=0 gin_channels=0 use_sdp=True",
    "models.SynthesizerTrn.forward": "self x x_lengths y y_lengths sid=None",
    "models.SynthesizerTrn.infer": "self x x_lengths sid=None noise_scale=1 length_scale=1 noise_scale_w=1.0"
    " max_len=None",
    "models.SynthesizerTrn.voice_conversion": "self y y_lengths sid_src sid_tgt",
    "models.MultiPeriodDiscriminator": "use_spectral_norm=False",
    "models.MultiPeriodDiscriminator.forward": "self y y_hat",
    "models.DiscriminatorP": "period kernel_size=5 stride=3 use_spectral_norm=False",
    "models.DiscriminatorS": "use_spectral_norm=False",
    "models.DurationDiscriminatorV1": "in_channels filter_channels kernel_size p_dropout gin_channels=0",
    "models.DurationDiscriminatorV2": "in_channels filter_channels kernel_size p_dropout gin_channels=0",
    "models.DurationDiscriminatorV1.forward": "self x x_mask dur_r dur_hat g=None",
    "models.DurationDiscriminatorV2.forward": "self x x_mask dur_r dur_hat g=None",
    "models.TextEncoder": "n_vocab out_channels hidden_channels filter_channels n_heads n_layers kernel_size p_dropout",
    "models.PosteriorEncoder": "in_channels out_channels hidden_channels kernel_size dilation_rate n_layers"
    " gin_channels=0",
    "models.Generator": "initial_channel resblock resblock_kernel_sizes resblock_dilation_sizes upsample_rates"
    " upsample_initial_channel upsample_kernel_sizes gin_channels=0",
    "models.DurationPredictor": "in_channels filter_channels kernel_size p_dropout gin_channels=0",
    "models.StochasticDurationPredictor": "in_channels filter_channels kernel_size p_dropout n_flows=4 gin_channels=0",
    "losses.feature_loss": "fmap_r fmap_g",
    "losses.discriminator_loss": "disc_real_outputs disc_generated_outputs",
    "losses.generator_loss": "disc_outputs",
    "losses.kl_loss": "z_p logs_q m_p logs_p z_mask",
    "mel_processing.spectrogram_torch": "y n_fft sampling_rate hop_size win_size center=False",
    "mel_processing.spec_to_mel_torch": "spec n_fft num_mels sampling_rate fmin fmax",
    "mel_processing.mel_spectrogram_torch": "y n_fft num_mels sampling_rate hop_size win_size fmin fmax center=False",
    "commons.intersperse": "lst item",
    "commons.sequence_mask": "length max_length=None",
    "commons.generate_path": "duration mask",
    "commons.slice_segments": "x ids_str segment_size=4",
    "commons.rand_slice_segments": "x x_lengths=None segment_size=4",
    "commons.init_weights": "module mean=0.0 std=0.01",
    "commons.get_padding": "kernel_size dilation=1",
    "commons.subsequent_mask": "length",
    "commons.fused_add_tanh_sigmoid_multiply": "input_a input_b n_channels",
    "commons.clip_grad_value_": "parameters clip_value norm_type=2",
    "transforms.piecewise_rational_quadratic_transform": "inputs unnormalized_widths unnormalized_heights"
    " unnormalized_derivatives inverse=False tails=None tail_bound=1.0",
    "data_utils.TextAudioLoader": "audiopaths_and_text hparams",
    "data_utils.TextAudioSpeakerLoader": "audiopaths_sid_text hparams",
    "data_utils.TextAudioCollate": "return_ids=False",
    "data_utils.TextAudioSpeakerCollate": "return_ids=False",
    "data_utils.DistributedBucketSampler": "dataset batch_size boundaries num_replicas=None rank=None shuffle=True",
    "utils.get_hparams": "init=True",
    "utils.get_hparams_from_dir": "model_dir",
    "utils.get_hparams_from_file": "config_path",
    "utils.load_checkpoint": "checkpoint_path model optimizer=None",
    "utils.save_checkpoint": "model optimizer learning_rate iteration checkpoint_path",
    "utils.latest_checkpoint_path": "dir_path regex=G_*.pth",
    "utils.plot_spectrogram_to_numpy": "spectrogram",
    "utils.plot_alignment_to_numpy": "alignment info=None",
    "utils.load_wav_to_torch": "full_path",
    "utils.load_filepaths_and_text": "filename split=|",
    "text.text_to_sequence": "text cleaner_names",
    "text.cleaned_text_to_sequence": "cleaned_text",
    "text.sequence_to_text": "sequence",
    "monotonic_align.maximum_path": "neg_cent mask",
}
OLD_NAMES = (
    "models modules attentions transforms commons losses mel_processing data_utils utils utils.HParams config"
    " checkpoint corpus audio trainer reporting plots text text.symbols.symbols text.cleaners.get_cleaner"
    " monotonic_align synthesis.Voice infer_onnx.OnnxVoice.speak train.main train_ms.main"
)
PACKAGES = [path.parent.name for path in tiny.ROOT.glob("*/__init__.py")]
MODULES = {  # every module of the repository and its file
    ".".join(path.relative_to(tiny.ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for folder in ("", *PACKAGES)
    for path in sorted((tiny.ROOT / folder).glob("*.py"))
}
WITHOUT_TORCH = (
    "config files cli text text.cleaners corpora.filelist corpus audio conditions synthesis synthesis.speech"
    " synthesis.sentences infer_onnx"
)
REGISTRIES = [
    (configs.FlowType, FLOWS),
    (configs.DecoderType, DECODERS),
    (configs.DurationDiscriminatorType, DURATION_DISCRIMINATORS),
    (configs.ResblockType, RESBLOCKS),
]
FLOW = {name: {"use_transformer_flows": bool(name), "transformer_flow_type": name or "pre_conv"} for name in FLOWS}
CONDITION_CHANGES = {"sid": tiny.MANY_VOICES}
ENTRIES = {  # changes of the tiny config that select each entry of each registry
    **{f"flow {name}": {"model": keys} for name, keys in FLOW.items()},
    **{f"decoder {name}": {"model": tiny.DECODERS[name]} for name in DECODERS},
    **{name: {"model": {"duration_discriminator_type": name}} for name in DURATION_DISCRIMINATORS},
    **{f"resblock {name}": {"model": {"resblock": name}} for name in RESBLOCKS},
    **{f"condition {name}": CONDITION_CHANGES[name] for name in CONDITIONS},
}


def resolve(path):
    """Import and return the object of a dotted path, of which a prefix is a module."""
    module, *names = path.split(".")
    found = importlib.import_module(module)
    for i, name in enumerate(names):
        is_module = ".".join([module, *names[: i + 1]]) in MODULES
        found = importlib.import_module(f"{found.__name__}.{name}") if is_module else getattr(found, name)
    return found


@pytest.mark.parametrize("path", SIGNATURES)
def test_arguments_keep_their_order_and_defaults(path):
    given = [
        parameter.name if parameter.default is parameter.empty else f"{parameter.name}={parameter.default}"
        for parameter in inspect.signature(resolve(path)).parameters.values()
    ]
    wanted = SIGNATURES[path].split()
    assert given[: len(wanted)] == wanted
    extra = list(inspect.signature(resolve(path)).parameters.values())[len(wanted) :]
    assert all(p.default is not p.empty or p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in extra)


@pytest.mark.parametrize("path", [*OLD_NAMES.split(), *(f"models.{name}" for name in models.__all__)])
def test_old_names_can_be_imported(path):
    assert resolve(path)


def test_choices_and_tables():
    flows = "pre_conv pre_conv2 fft mono_layer_inter_residual mono_layer_post_residual"
    assert " ".join(models.AVAILABLE_FLOW_TYPES) == flows
    assert models.AVAILABLE_DURATION_DISCRIMINATOR_TYPES == ["dur_disc_1", "dur_disc_2", "dur_disc_3"]
    golden = json.loads((tiny.ROOT / "tests/golden/symbols.json").read_text("utf-8"))
    symbols = resolve("text.symbols.symbols")
    assert list(symbols) == golden and len(symbols) == 178
    assert resolve("train_ms.main") is resolve("train.main")


@pytest.mark.parametrize(("choices", "registry"), REGISTRIES)
def test_the_choices_of_a_setting_are_the_keys_of_its_registry(choices, registry):
    assert list(typing.get_args(choices)) == [name for name in registry if name is not None]


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_entry_of_every_registry_trains_and_synthesizes(entry):
    config = tiny.config(tiny.DURATION_DISCRIMINATOR, ENTRIES[entry])
    run = Trainer(config, torch.device("cpu"))
    assert all(value.isfinite() for value in run.step(tiny.batch(config)).values())
    sample = run.synthesize(tiny.batch(config, (40,), (4,)))
    assert sample.audio.shape == (sample.mel_hat.shape[1] * config.data.hop_length,)


def test_the_dry_run_of_the_readme():
    """Its segment is longer than the utterance and its lengths are floats. Its keys are those of a published config."""
    path = tiny.ROOT / "tests/golden/configs/vits2_pytorch/vits2_ljs_base.json"
    keys = json.loads(path.read_text("utf-8"))["model"]
    keys |= {"transformer_flow_type": "fft", "use_spk_conditioned_encoder": True}
    net_g = models.SynthesizerTrn(
        n_vocab=256, spec_channels=80, segment_size=8192, n_speakers=0, gin_channels=0, **keys
    )
    x = torch.LongTensor([[1, 2, 3], [4, 5, 6]])
    x_lengths = torch.LongTensor([3, 2])
    y = torch.randn(2, 80, 100)
    y_lengths = torch.Tensor([100, 80])
    o, l_length, attn, ids_slice, x_mask, y_mask, latents, durations = net_g(
        x=x, x_lengths=x_lengths, y=y, y_lengths=y_lengths
    )
    assert o.shape == (2, 1, 100 * 256)
    assert l_length.shape == (2,)
    assert attn.shape == (2, 1, 100, 3)
    assert torch.equal(attn.sum((1, 3))[1], (torch.arange(100) < 80).float())
    assert ids_slice.tolist() == [0, 0]
    assert x_mask.sum() == 5 and y_mask.sum() == 180
    assert len(latents) == 6 and all(t.shape == (2, 192, 100) for t in latents)
    hidden, logw, logw_ = durations
    assert hidden.shape == (2, 192, 3) and logw.shape == logw_.shape == (2, 1, 3)
    (o.square().mean() + l_length.sum()).backward()


MODEL = tiny.SECTIONS["model"] | {"n_heads": 2, "kernel_size": 3, "p_dropout": 0.1}


def test_an_unknown_keyword_is_an_error_with_the_nearest_one():
    with pytest.raises(ValueError, match=r"'use_transformer_flow'.*did you mean 'use_transformer_flows'"):
        models.SynthesizerTrn(178, 20, 32, **MODEL, use_transformer_flow=True)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"transformer_flow_type": "pre_con"}, "'pre_con'; choices: .*'pre_conv2'"),
        ({"decoder": "hifi"}, "decoder is 'hifi'; choices: 'hifigan'"),
        ({"resblock": "3"}, "resblock is '3'; choices: '1', '2'"),
        ({"n_speakers": 2}, "gin_channels above 0"),
    ],
)
def test_values_that_cannot_be_built_are_errors(change, complaint):
    with pytest.raises(ValueError, match=complaint):
        models.SynthesizerTrn(178, 20, 32, **MODEL | change)


def test_the_network_accepts_every_key_and_has_the_defaults_of_the_config():
    keys = dataclasses.asdict(configs.ModelConfig())
    parameters = inspect.signature(models.SynthesizerTrn).parameters
    shared = {name: parameters[name].default for name in keys if name in parameters}
    given = {name: value for name, value in shared.items() if value is not inspect.Parameter.empty}
    assert given == {name: keys[name] for name in given} and {"gin_channels", "use_sdp"} <= set(given)
    models.SynthesizerTrn(178, 20, 32, **keys | tiny.SECTIONS["model"])


def test_errors_name_missing_speakers():
    many, one = (models.SynthesizerTrn.from_config(tiny.config(speakers), 178) for speakers in (tiny.MANY_VOICES, {}))
    x, lengths, sid = torch.ones(1, 3).long(), torch.tensor([3]), torch.tensor([0])
    with pytest.raises(ValueError, match="2 speakers: give sid"):
        many.infer(x, lengths)
    with pytest.raises(ValueError, match="single voice"):
        one.voice_conversion(torch.zeros(1, 20, 9), torch.tensor([9]), sid, sid)
    assert many.conditions == {"sid": 2} and one.conditions == {}
    assert many.condition(sid).equal(many.condition({"sid": sid})) and one.condition(None) is None


def imports_of(path):
    """Return the names that a file imports when it is imported itself: modules, packages and objects."""
    found, nodes = set(), list(ast.parse(path.read_text("utf-8")).body)
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Try) or (isinstance(node, ast.If) and ast.unparse(node.test) != "TYPE_CHECKING"):
            nodes += [*node.body, *node.orelse]
    return found


IMPORTS = {name: imports_of(path) for name, path in MODULES.items()}


def reached_from(name):
    """Return everything that is imported with a module, directly or not."""
    reached, names = set(), [name]
    while names:
        name = names.pop()
        if name not in reached:
            reached.add(name)
            package = name.rpartition(".")[0]
            names += [*IMPORTS.get(name, ()), *([package] if package else [])]
    return reached


def test_imports_have_no_cycles():
    graph = {name: (imported & set(MODULES)) - {name} for name, imported in IMPORTS.items()}
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError


def test_imports_respect_the_layers():
    assert "torch" in reached_from("kernels.fused") and "monotonic_align" not in reached_from("kernels.fused")
    assert not reached_from("config") & {"flows", "decoders", "discriminators", "modules", "models"}
    assert [name for name, imported in IMPORTS.items() if "train" in imported] == ["train_ms"]


@pytest.mark.parametrize("name", WITHOUT_TORCH.split())
def test_synthesis_with_onnx_runtime_does_not_import_pytorch(name):
    assert name in MODULES and "torch" not in reached_from(name)


WATCH = """
import sys, threading, os, logging, warnings, signal, random, subprocess
import numpy, torch, soundfile, soxr, tqdm, tqdm.contrib.logging, PIL, torch.nn.utils.parametrizations
import torch.utils.data, torch.multiprocessing, torch.distributed, torch.nn.parallel, torch._dynamo
for name in ("gradio", "onnx", "onnxruntime", "librosa", "matplotlib.figure"):  # these change the state themselves
    try:
        __import__(name)
    except ImportError:
        pass
for name in ("espeakng_loader", "phonemizer"):
    sys.modules[name] = None  # importing it fails

def refused(*arguments, **keywords):
    raise AssertionError(f"started a process: {arguments}")

subprocess.Popen.__init__ = refused
os.system = os.fork = refused

def state():
    names = [name for name in logging.Logger.manager.loggerDict if logging.getLogger(name).handlers]
    return {
        "handlers": (list(logging.getLogger().handlers), names), "level": logging.getLogger().level,
        "filters": list(warnings.filters), "show": warnings.showwarning, "threads": threading.active_count(),
        "torch": torch.get_rng_state().tolist(), "numpy": numpy.random.get_state()[1].tolist(),
        "python": random.getstate(), "workers": torch.get_num_threads(), "environment": dict(os.environ),
        "signals": [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)], "folder": os.getcwd(),
        "grad": torch.is_grad_enabled(), "dtype": torch.get_default_dtype(), "path": list(sys.path),
        "files": sorted(os.listdir(".")), "precision": torch.get_float32_matmul_precision(),
        "cudnn": torch.backends.cudnn.benchmark, "start": torch.multiprocessing.get_start_method(allow_none=True),
    }

before = state()
for name in sys.argv[1:]:
    __import__(name)
    after = state()
    changed = [key for key in before if before[key] != after[key]]
    assert not changed, f"importing {name} changed {changed}"
if os.path.exists("/proc/self/maps"):
    assert "espeak" not in open("/proc/self/maps").read()
"""


def test_importing_changes_nothing_and_needs_no_espeak(tmp_path):
    has_triton = importlib.util.find_spec("triton") is not None
    modules = [name for name in MODULES if has_triton or "triton" not in name]
    modules.remove("monotonic_align.setup")  # setuptools changes the path
    done = tiny.python("-c", WATCH, *modules, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not done.stdout and not done.stderr
