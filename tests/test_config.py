"""Config files: defaults, published and shipped files, error messages, and the JSON schema."""

import dataclasses
import json
import re
import typing
from types import SimpleNamespace

import jsonschema
import pytest
import tiny

import config as configs
from settings import checks

FOLDER = tiny.ROOT / "configs"
PUBLISHED = sorted((tiny.ROOT / "tests/golden/configs").glob("*/*.json"))
SHIPPED = sorted(path for path in FOLDER.glob("*.json") if path.name != "schema.json")
SCHEMA = jsonschema.Draft7Validator(json.loads((FOLDER / "schema.json").read_text("utf-8")))
# Differences between shipped configs and the published ones of the same name.
LEARNING = {  # the published discriminator is linear and learns nothing
    ("model", "duration_discriminator_type"): ("dur_disc_1", "dur_disc_3"),
    ("model", "use_duration_noise"): (False, True),
    ("model", "duration_p_dropout"): (0.5, 0.1),
}
DIFFERENCES = {
    "vits2_ljs_nosdp.json": LEARNING,
    "vits2_vctk_base.json": LEARNING,
    # the duration discriminator makes the rhythm of the stochastic predictor unsteady
    "vits2_ljs_base.json": {("model", "use_duration_discriminator"): (True, False)},
    "vits2_vctk_standard.json": {("model", "use_duration_discriminator"): (True, False)},
}


def read(path):
    return json.loads(path.read_text("utf-8"))


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_published_configs_keep_their_values(path):
    config = dataclasses.asdict(configs.load(path))
    for section, values in read(path).items():
        for key, value in values.items():
            assert config[section][key] == value
    assert (configs.load(path).spec_channels == 80) == path.name.startswith("vits2")
    assert configs.load(path).segment_frames == 32


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_configs_show_the_main_settings(path):
    shown = {
        "train": {"batch_size", "epochs", "learning_rate"},
        "data": {"training_files", "validation_files", "text_cleaners", "sampling_rate", "add_blank", "n_speakers"},
        "model": {"use_sdp", "use_transformer_flows", "use_noise_scaled_mas", "use_duration_discriminator"},
    }
    written = read(path)
    assert all(keys <= set(written[section]) for section, keys in shown.items())
    assert written["$schema"] == "./schema.json"


def test_the_documentation_lists_the_shipped_configs():
    table = re.search(
        r"^\| config \|.*\n(?:\|.*\n)+", (tiny.ROOT / "docs/training.md").read_text("utf-8"), re.MULTILINE
    )
    first_columns = [row.split("|")[1] for row in table[0].splitlines()[2:]]
    listed = re.findall(r"`(\w+)`", " ".join(first_columns))
    assert sorted(listed) == sorted(path.stem for path in SHIPPED)


def test_configs_named_in_the_documentation_and_programs_are_shipped():
    files = [tiny.ROOT / "README.md"]
    for pattern in ("*.py", "*.ipynb", "docs/*.md", "benchmarks/*"):
        files += (path for path in tiny.ROOT.glob(pattern) if path.is_file())
    named = {name for path in files for name in re.findall(r"configs/(\w+)\.json", path.read_text("utf-8"))}
    assert "vits2_ljs_nosdp" in named
    assert named <= {path.stem for path in SHIPPED} | {"schema", "my"}  # my.json stands for the reader's own config


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_configs_equal_published_ones_of_the_same_name(path):
    ours = dataclasses.asdict(configs.load(path))
    for published in (other for other in PUBLISHED if other.name == path.name):
        theirs = dataclasses.asdict(configs.load(published))
        different = {
            (section, key): (theirs[section][key], ours[section][key])
            for section in theirs
            for key in theirs[section]
            if theirs[section][key] != ours[section][key]
        }
        assert different == DIFFERENCES.get(path.name, {})


def test_configs_of_every_published_name_are_shipped():
    not_shipped = {"vits2_vctk_base_pr.json"}  # vits2_vctk_base.json with english_cleaners3
    assert {path.name for path in PUBLISHED} - {path.name for path in SHIPPED} == not_shipped


def test_saved_configs_are_complete_and_load_again(tmp_path):
    config = tiny.config(tiny.MANY_VOICES, data={"speakers": {"Zoë": 0, "b": 1}})
    path = tmp_path / "config.json"
    configs.save(config, path)
    assert configs.load(path) == config
    assert read(path) == dataclasses.asdict(config)
    assert "Zoë" in path.read_text("utf-8")
    marked = tmp_path / "marked.json"
    marked.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert configs.load(marked) == config


def test_choices_equal_the_keys_of_the_registries():
    from decoders import DECODERS
    from discriminators import DURATION_DISCRIMINATORS
    from flows import FLOWS, Coupling
    from modules import RESBLOCKS

    assert set(typing.get_args(configs.FlowType)) == set(FLOWS) - {None}
    assert set(typing.get_args(configs.DurationDiscriminatorType)) == set(DURATION_DISCRIMINATORS)
    assert set(typing.get_args(configs.ResblockType)) == set(RESBLOCKS)
    assert set(typing.get_args(configs.DecoderType)) == set(DECODERS)
    heads = {
        name: max(layer.n_heads for layer in layers if issubclass(layer, Coupling)) for name, layers in FLOWS.items()
    }
    assert {name: count for name, count in heads.items() if count > 1} == checks.FLOW_HEADS


def test_config_is_imported_without_the_network():
    program = (
        "import sys, config; print({'torch', 'flows', 'discriminators', 'modules', 'decoders'} & set(sys.modules))"
    )
    done = tiny.python("-c", program, folder=tiny.ROOT)
    assert done.stdout == "set()\n", done.stderr


def test_older_config_objects_have_the_defaults_of_new_data_settings():
    data = SimpleNamespace(max_text_len=50)
    assert configs.data_setting(data, "max_text_len") == 50
    assert configs.data_setting(data, "min_text_len") == 1
    assert configs.data_setting(data, "speakers") == {}
    with pytest.raises(AttributeError):
        configs.data_setting(data, "speaker")


def test_field_names_are_the_keys_of_a_section():
    keys = configs.field_names(configs.DataConfig)
    assert keys == configs.field_names(configs.DataConfig()) == list(dataclasses.asdict(configs.DataConfig()))


@pytest.mark.parametrize(
    ("section", "key", "value", "complaint"),
    [
        ("train", "batchsize", 2, "train: unknown key 'batchsize'; did you mean 'batch_size'?"),
        ("model", "use_transformer_flow", True, "model: unknown key .*did you mean 'use_transformer_flows'?"),
        ("data", "qqqqqq", 1, "data: unknown key 'qqqqqq'; known keys: training_files, .*hop_length"),
        ("train", "batch_size", "2", 'train: batch_size is "2", and should be of type int'),
        ("train", "batch_size", 2.5, "train: batch_size is 2.5, and should be of type int"),
        ("train", "batch_size", True, "train: batch_size is true, and should be of type int"),
        ("train", "fp16_run", 1, "train: fp16_run is 1, and should be of type bool"),
        ("train", "betas", [0.8, "x"], r"train: betas is .*should be of type list\[float\]"),
        ("model", "resblock", 1, "model: resblock is 1, and should be of type str"),
        ("data", "mel_fmax", "8k", r"data: mel_fmax is \"8k\", and should be of type float \| None"),
        ("data", "speakers", {"a": "b"}, r"data: speakers is .*should be of type dict\[str, int\]"),
        ("data", "hop_length", 100, "data.hop_length is 100, but model.upsample_rates make 8 x 8 = 64"),
        ("train", "segment_size", 100, r"train.segment_size \(100\) is not a whole number of hops of 64"),
        ("data", "win_length", 512, r"data.win_length \(512\) is longer than data.filter_length \(256\)"),
        ("data", "mel_fmax", 9000, r"data.mel_fmax \(9000\) lies above half of data.sampling_rate \(16000\)"),
        ("data", "use_mel_posterior_encoder", False, "use_mel_posterior_encoder differs between data and model"),
        ("data", "n_speakers", 4, "data.n_speakers is 4: model.gin_channels must be above 0"),
        ("model", "upsample_kernel_sizes", [16, 15], "an upsampling kernel of 15 cannot upsample by 8"),
        ("model", "upsample_kernel_sizes", [16], "upsample_kernel_sizes have different lengths"),
        ("model", "resblock_dilation_sizes", [[1], [1]], "resblock_dilation_sizes have different lengths"),
        ("model", "hidden_channels", 9, r"hidden_channels \(9\) cannot be shared by model.n_heads \(2\)"),
        ("model", "inter_channels", 6, r"inter_channels \(6\) must divide by 4"),
        ("model", "discriminator_channels", 100, "must be a multiple of 64"),
        ("model", "transformer_flow_type", "pre_conf", "'pre_conf'; did you mean 'pre_conv'.* It may be .*fft"),
        ("model", "duration_discriminator_type", "v1", "It may be dur_disc_1, dur_disc_2"),
        ("model", "resblock", "3", "model.resblock is '3'.*It may be 1, 2"),
        ("train", "precision", "fp8", "train.precision is 'fp8'.*fp32, bf16, fp16"),
        ("train", "bucket_boundaries", [300, 0], "bucket_boundaries must be two or more rising numbers"),
        ("train", "accumulate", 3, r"train.batch_size \(2\) cannot be shared by train.accumulate \(3\) parts"),
        ("train", "accumulate", 0, "train.accumulate.* 0"),
        ("train", "duration_stage_start", 5, "duration_stage_start needs model.use_duration_discriminator"),
        ("train", "learning_rate", float("nan"), "train.learning_rate is NaN, and should be above 0"),
        ("train", "learning_rate", float("inf"), "train.learning_rate is Infinity, and should be above 0"),
        ("train", "seed", 2**70, r"train.seed is \d+, and should be below 2 to the power of 63"),
        ("data", "mel_fmin", 8000, r"mel_fmin \(8000\) is not below the highest frequency of the mel bands, 8000"),
        ("data", "min_text_len", 300, r"min_text_len \(300\) is above data.max_text_len \(190\)"),
        ("data", "filter_length", 32, r"hop_length \(64\) is longer than data.filter_length \(32\)"),
        ("data", "text_cleaners", [], "text_cleaners is empty: name one"),
        ("data", "extra_symbols", "aщщ", "extra_symbols names 'a', 'щ' which the table has already"),
        ("model", "p_dropout", 1.5, "p_dropout is 1.5, and should be below 1"),
        ("model", "upsample_initial_channel", 6, r"upsample_initial_channel \(6\) .*must be a multiple of 4"),
        ("train", "batch_size", 0, "train.batch_size.* 0"),
        ("train", "log_interval", 0, "train.log_interval.* 0"),
        ("train", "eval_interval", 0, "train.eval_interval.* 0"),
        ("train", "epochs", 0, "train.epochs.* 0"),
        ("train", "num_workers", -1, "train.num_workers.* -1"),
        ("data", "hop_length", 0, "data.hop_length.* 0"),
        ("data", "n_speakers", -1, "data.n_speakers.* -1"),
        ("model", "n_heads", 0, "model.n_heads.* 0"),
        ("model", "n_layers", 0, "model.n_layers.* 0"),
        ("train", "betas", [0.9], "train.betas is .*two numbers below 1"),
        ("model", "resblock_kernel_sizes", [4], r"resblock_kernel_sizes are \[4\]; only odd ones"),
        ("model", "resblock_dilation_sizes", [[]], "each of resblock_dilation_sizes must not be empty"),
        ("model", "upsample_rates", [], "model.upsample_rates, resblock_kernel_sizes and each of .* must not be empty"),
        ("model", "decoder", "hifigam", "model.decoder is 'hifigam'; did you mean 'hifigan'.* It may be hifigan"),
    ],
)
def test_wrong_keys_types_and_combinations_are_rejected(tmp_path, section, key, value, complaint):
    path = tmp_path / "my.json"
    tiny.write_config(path, {section: {key: value}})
    with pytest.raises(ValueError, match=complaint) as raised:
        configs.load(path)
    assert all(line.startswith(str(path)) for line in str(raised.value).splitlines())


def test_combinations_of_several_settings_are_rejected():
    with pytest.raises(ValueError, match=r"use_duration_noise .*needs use_sdp false"):
        tiny.config(model={"use_sdp": True, "use_duration_noise": True})
    with pytest.raises(ValueError, match=r"before its third layer; model\.n_layers is 2"):
        tiny.config(tiny.MANY_VOICES, model={"n_layers": 2})
    with pytest.raises(ValueError, match=r"hidden_channels \(18\) cannot be shared by the 4 heads of its flow"):
        tiny.config(model={"transformer_flow_type": "fft", "hidden_channels": 18})
    late = {"duration_stage_start": 1, "duration_discriminator_start": 10}
    with pytest.raises(ValueError, match="duration_discriminator_start must not be later than"):
        tiny.config(train=late, model={"use_duration_discriminator": True})


@pytest.mark.parametrize(
    "change",
    [
        {"data": {"hop_length": 100}, "train": {"segment_size": 1000}},
        {"model": {"upsample_kernel_sizes": [15, 16]}},
        {"model": {"upsample_initial_channel": 6}},
        {"model": {"resblock_kernel_sizes": [4]}},
    ],
)
def test_rules_of_hifigan_apply_to_that_decoder_only(change, monkeypatch):
    with pytest.raises(ValueError):
        tiny.config(change)
    monkeypatch.setitem(configs.CHOICES, "model.decoder", ("hifigan", "other"))
    assert tiny.config(change, model={"decoder": "other"}).model.decoder == "other"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"istft_hop_length": 128}, "data.hop_length is 64, but model.istft_hop_length is 128"),
        ({"istft_n_fft": 96}, r"model.istft_n_fft \(96\) must be even and two or more times model.istft_hop_length"),
        ({"istft_n_fft": 64}, r"model.istft_n_fft \(64\) must be even and two or more"),
    ],
)
def test_rules_of_vocos_apply_to_that_decoder_only(change, complaint):
    with pytest.raises(ValueError, match=complaint):
        tiny.config(model={"decoder": "vocos", **change})
    assert tiny.config(model=change).model.decoder == "hifigan"
    assert tiny.config(model={"decoder": "vocos", "upsample_rates": [3]}).model.upsample_rates == [3]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"subbands": 8}, "data.hop_length is 64, but .*istft_hop_length and subbands make 4 x 4 x 8 = 128"),
        ({"istft_n_fft": 10}, r"model.istft_n_fft \(10\) must be even and two or more times .*_hop_length \(4\)"),
        ({"upsample_rates": []}, "model.upsample_rates, resblock_kernel_sizes and each of .* must not be empty"),
        ({"upsample_kernel_sizes": [7]}, "an upsampling kernel of 7 cannot upsample by 4"),
        ({"subbands": 1}, "model.subbands is 1, and should be 2 or more"),
    ],
)
def test_rules_of_mb_istft(change, complaint):
    with pytest.raises(ValueError, match=complaint):
        tiny.config(model={**tiny.DECODERS["mb_istft"], **change})


def test_all_contradictions_are_reported_together():
    with pytest.raises(ValueError) as raised:
        tiny.config(data={"hop_length": 100, "n_speakers": 2}, train={"precision": "fp8"})
    assert len(str(raised.value).splitlines()) == 4  # the fourth: the segment is not a whole number of hops of 100


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, r"cannot read the config file .*my\.json: No such file"),
        ('{"train": {},}', r"my\.json, line 1: not valid JSON"),
        ("[]", r"my\.json: a config is an object of the sections train, data, model"),
        ('{"train": {}, "data": {}}', r"my\.json: the section 'model' is missing"),
        ('{"train": 3, "data": {}, "model": {}}', r"my\.json, train: a section is an object .*not 3"),
        ('{"trian": {}, "data": {}, "model": {}}', r"my\.json: unknown key 'trian'; did you mean 'train'"),
    ],
)
def test_files_that_are_not_configs_are_rejected(tmp_path, text, complaint):
    if text is not None:
        (tmp_path / "my.json").write_text(text, "utf-8")
    with pytest.raises(ValueError, match=complaint):
        configs.load(tmp_path / "my.json")


def test_the_committed_schema_equals_the_generated_one(capsys):
    configs.main(["--schema"])
    assert capsys.readouterr().out == (FOLDER / "schema.json").read_text("utf-8")
    jsonschema.Draft7Validator.check_schema(SCHEMA.schema)


def test_the_schema_describes_every_setting():
    default = dataclasses.asdict(configs.Config())
    for section, values in default.items():
        properties = SCHEMA.schema["properties"][section]["properties"]
        assert {key: described["default"] for key, described in properties.items()} == values
        assert all(len(described["description"]) > 4 for described in properties.values())


@pytest.mark.parametrize("path", [*SHIPPED, *PUBLISHED], ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_schema_accepts_configs(path):
    SCHEMA.validate(read(path))
    SCHEMA.validate(dataclasses.asdict(configs.load(path)))


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("train", "batchsize", 2),
        ("train", "batch_size", "2"),
        ("train", "batch_size", 0),
        ("train", "num_workers", -1),
        ("model", "p_dropout", 1.0),
        ("train", "precision", "fp8"),
        ("data", "mel_fmax", "8k"),
        ("data", "speakers", {"a": "b"}),
        ("model", "resblock_dilation_sizes", [[0]]),
        ("model", "transformer_flow_type", "pre_conf"),
    ],
)
def test_the_schema_rejects_what_loading_rejects(section, key, value):
    sections = tiny.sections({section: {key: value}})
    assert not SCHEMA.is_valid(sections)
    with pytest.raises(ValueError):
        configs.from_dict(sections)


FOREIGN = {
    "MB-iSTFT-VITS": {"model": {"subbands": 4, "gen_istft_n_fft": 16, "gen_istft_hop_size": 4}},
    "Bert-VITS2": {"data": {"spk2id": {"a": 0}}, "train": {"c_commit": 100}},
    "Plachtaa/VITS-fast-fine-tuning": {"symbols": ["_", "a"], "speakers": {"a": 0}},
    "daniilrobnikov/vits2": {"model": {"n_flows": 8, "speaker_cond_layer": 0}, "data": {"n_fft": 2048}},
    "Coqui TTS": {"model_args": {"num_chars": 3}, "characters": {}},
    "Piper": {"phoneme_id_map": {"_": [0]}, "audio": {}},
    "Hugging Face": {"model_type": "vits", "vocab_size": 38},
}


@pytest.mark.parametrize("project", FOREIGN)
def test_a_config_of_another_project_is_recognized(project, tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"train": {}, "data": {}, "model": {}} | FOREIGN[project]), "utf-8")
    with pytest.raises(ValueError, match=rf"a\.json: this is a config of {project}.*Works: .*Does not: "):
        configs.load(path)


def test_yaml_is_read_to_recognize_it(tmp_path):
    pytest.importorskip("yaml")
    path = tmp_path / "config.yaml"
    path.write_text("model:\n  n_flows: 8\ndata:\n  n_fft: 2048\n", "utf-8")
    with pytest.raises(ValueError, match="this is a config of daniilrobnikov/vits2"):
        configs.load(path)
    path.write_text("model: [", "utf-8")
    with pytest.raises(ValueError, match=r"config\.yaml: not valid YAML"):
        configs.load(path)


def test_cleaners_are_checked_when_a_file_is_loaded(tmp_path):
    wrong = tiny.write_config(tmp_path / "a.json", data={"text_cleaners": ["phonems_de"]})
    with pytest.raises(ValueError, match="no text cleaner 'phonems_de'; nearest: phonemes_de"):
        configs.load(wrong)
    theirs = tiny.write_config(tmp_path / "a.json", data={"text_cleaners": ["japanese_cleaners"]})
    with pytest.warns(UserWarning, match="japanese_cleaners is a cleaner of .*emotional-vits"):
        configs.load(theirs)
    plain = {"text_cleaners": ["japanese_cleaners"], "cleaned_text": False}
    with pytest.raises(ValueError, match="clean the filelists there"):
        configs.load(tiny.write_config(tmp_path / "a.json", data=plain))


def test_the_program_checks_files(tmp_path):
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    tiny.write_config(good)
    tiny.write_config(bad, train={"batch_size": 0})
    program = str(tiny.ROOT / "config.py")
    done = tiny.python(program, str(good), folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{good}: valid\n", "")
    done = tiny.python(program, str(bad), str(good), folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, f"{good}: valid\n")
    assert done.stderr == f"{bad}: train.batch_size is 0, and should be above 0\n"
    assert tiny.python(program, folder=tmp_path).returncode == 2


UNREADABLE = {
    "nested": (b"[" * 100_000, "is nested too deeply"),
    "UTF-16": ("{}".encode("utf-16"), "is not a text file in UTF-8, but probably UTF-16: save"),
    "Latin-1": ('{"train": "ü"}'.encode("latin-1"), "but probably CP1252 or Latin-1"),
    "binary": (bytes(range(256)), "is not a text file in UTF-8"),
    "twice": (b'{"train": {"epochs": 1, "epochs": 2}, "data": {}, "model": {}}', "the key 'epochs' stands twice"),
    "huge": (b'{"train": {"learning_rate": 1' + b"0" * 400 + b'}, "data": {}, "model": {}}', "is too large"),
    "endless number": (b'{"train": {"epochs": 1' + b"0" * 5000 + b'}, "data": {}, "model": {}}', "is too large"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_files_that_cannot_be_read_are_named(case, tmp_path):
    content, complaint = UNREADABLE[case]
    (tmp_path / "c.json").write_bytes(content)
    with pytest.raises(ValueError, match=rf"^\S*c\.json.*{complaint}"):
        configs.load(tmp_path / "c.json")
