"""Checkpoint files: names and optimizer states of the reference, mismatches, damage, pruning, transfer of weights."""

import dataclasses
import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest
import tiny
import torch

import checkpoint
import config as configs
import discriminators
import distributed
import models
import trainer
from importers import transfer
from text.symbols import symbols

GOLDEN = tiny.ROOT / "tests/golden"
FULL = json.loads((GOLDEN / "state_dict_full.json").read_text("utf-8"))


def generator(*changes, **more):
    return trainer.build_generator(tiny.config(*changes, **more))


def flow(kind):
    return {"model": {"use_transformer_flows": kind is not None, "transformer_flow_type": kind or "pre_conv"}}


def adam(network):
    return torch.optim.AdamW(network.parameters(), 1e-3, (0.8, 0.99), 1e-9)


def reference_checkpoint(network):
    """Return weights in the reference's order, with its unused layers, and the state of their optimizer.

    Gradients, and so the moments in the state, are the positions of the parameters.
    """
    weights = {}
    for name, value in checkpoint.reference_state_dict(network).items():
        weights[name] = value
        if name.endswith("pre.bias") and name.startswith("flow."):  # the position among the names does not matter
            for layer in ("emb", "weight"):
                weights[name.replace("pre.bias", f"post_transformer.{layer}")] = torch.ones(3)
    parameters = [torch.nn.Parameter(value.clone()) for value in weights.values()]
    optimizer = torch.optim.AdamW(parameters, 3e-4, (0.8, 0.99), 1e-9)
    for i, parameter in enumerate(parameters):
        parameter.grad = torch.full_like(parameter, float(i))
    optimizer.step()
    return weights, optimizer.state_dict()


@pytest.mark.parametrize("name", FULL)
def test_networks_of_published_configs_have_the_references_weights(name):
    config = configs.load(GOLDEN / f"configs/vits2_pytorch/{name}.json")
    with torch.device("meta"):
        net = trainer.build_generator(config)
    ours = [[key, list(value.shape)] for key, value in checkpoint.reference_state_dict(net).items()]
    assert ours == [[key, shape] for key, shape in FULL[name] if "post_transformer" not in key]


def test_a_saved_file_has_the_format_of_vits(tmp_path):
    net = generator()
    optimizer = adam(net)
    path = tmp_path / "G_7.pth"
    checkpoint.save_checkpoint(net, optimizer, 1e-3, 3, path, extra=5)
    content = torch.load(path, weights_only=True)
    assert list(content) == ["model", "iteration", "optimizer", "learning_rate", "extra"]
    assert (content["iteration"], content["learning_rate"], content["extra"]) == (3, 1e-3, 5)
    assert not any("parametrizations" in name for name in content["model"])
    assert len(content["optimizer"]["param_groups"][0]["params"]) == len(content["model"])
    assert [path.name for path in tmp_path.iterdir()] == ["G_7.pth"]


NETWORKS = {
    "G": generator,
    "D": lambda: discriminators.MultiPeriodDiscriminator(False, 64),
    "D with spectral norm": lambda: discriminators.MultiPeriodDiscriminator(True, 64),
    "DUR": lambda: discriminators.DurationDiscriminatorV2(8, 8, 3, 0.1),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_loading_restores_weights_and_optimizer(kind, tmp_path):
    torch.manual_seed(0)
    net = NETWORKS[kind]()
    optimizer = adam(net)
    for parameter in net.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    checkpoint.save_checkpoint(net, optimizer, 1e-3, 3, tmp_path / "a.pth")
    other = NETWORKS[kind]()
    other_optimizer = adam(other)
    _, _, rate, iteration = checkpoint.load_checkpoint(tmp_path / "a.pth", other, other_optimizer)
    assert (rate, iteration) == (1e-3, 3)
    assert tiny.equal(other.state_dict(), net.state_dict())
    assert tiny.equal(other_optimizer.state_dict()["state"], optimizer.state_dict()["state"])


@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_resumes_at_its_position_with_its_random_state(processes, tmp_path, monkeypatch, caplog):
    """The random state of another number of processes is not used."""
    run, other = (trainer.Trainer(tiny.config(), torch.device("cpu")) for _ in range(2))
    assert not checkpoint.resume_run(run, tmp_path)
    torch.rand(5)
    run.position = checkpoint.Position(step=7, epoch=2, batch=1, best=0.5, seconds=3.0)
    monkeypatch.setattr(distributed, "gather", lambda value: [value] * processes)
    checkpoint.save_run(run, tmp_path)
    drawn = torch.rand(3)
    assert checkpoint.resume_run(other, tmp_path) and other.position == run.position
    assert torch.equal(torch.rand(3), drawn) == (processes == 1)
    assert ("random draws restart" in caplog.text) == (processes == 2)


def test_unused_layers_of_the_reference_are_skipped_in_weights_and_optimizer(tmp_path):
    torch.manual_seed(0)
    weights, state = reference_checkpoint(tiny.randomise(generator()))
    assert any("post_transformer" in name for name in weights)
    path = tmp_path / "G_100.pth"
    torch.save({"model": weights, "optimizer": state, "learning_rate": 1e-4, "iteration": 5}, path)
    net = generator()
    optimizer = adam(net)
    checkpoint.load_checkpoint(path, net, optimizer)
    numbers = {name: i for i, name in enumerate(weights)}
    loaded = checkpoint.reference_state_dict(net)
    assert all(torch.equal(loaded[name], weights[name]) for name in loaded)
    for name, parameter in net.named_parameters():
        moments = optimizer.state[parameter]
        i = numbers[checkpoint.reference_name(name)]
        assert torch.allclose(moments["exp_avg"], torch.full_like(parameter, 0.2 * i)), name
    assert optimizer.param_groups[0]["lr"] == 3e-4
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()


def test_a_learning_rate_in_a_tensor_is_saved_as_a_number(tmp_path):
    net = generator()
    optimizer = torch.optim.AdamW(net.parameters(), torch.tensor(0.25))
    optimizer.param_groups[0]["capturable"] = True
    checkpoint.save_checkpoint(net, optimizer, 0.25, 1, tmp_path / "G_1.pth")
    (group,) = checkpoint.read(tmp_path / "G_1.pth")["optimizer"]["param_groups"]
    assert type(group["lr"]) is float and group["lr"] == 0.25 and not group["capturable"]
    assert torch.is_tensor(optimizer.param_groups[0]["lr"]) and optimizer.param_groups[0]["capturable"]


def test_an_optimizer_of_other_parameters_is_rejected(tmp_path):
    net = generator()
    weights, state = reference_checkpoint(net)
    del weights["enc_p.proj.bias"]
    with pytest.raises(ValueError, match=r"x\.pth: the optimizer's parameters do not match those of the model"):
        checkpoint.load_optimizer(adam(net), net, {"model": weights, "optimizer": state}, "x.pth")


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_weights_of_the_deprecated_weight_norm_load():
    """VITS saves weights of `torch.nn.utils.weight_norm`. The outputs must be the same."""
    from torch.nn.utils import weight_norm

    wavenet = models.modules.WN(4, 3, 2, 3, 5)
    old = models.modules.remove_weight_norm(models.modules.WN(4, 3, 2, 3, 5))
    for module in old.modules():
        if isinstance(module, torch.nn.Conv1d):
            weight_norm(module)
    tiny.randomise(old)
    checkpoint.load_weights(wavenet, old.state_dict(), "old")
    x, mask, g = torch.randn(2, 4, 9), torch.ones(2, 1, 9), torch.randn(2, 5, 1)
    assert torch.allclose(wavenet(x, mask, g), old(x, mask, g), atol=1e-6)
    assert list(checkpoint.reference_state_dict(wavenet)) == list(old.state_dict())


WRONG = {
    "a discriminator": (
        lambda: discriminators.MultiPeriodDiscriminator(channels=64),
        r"holds a discriminator \(D\), but a synthesizer \(G\) is needed",
    ),
    "a duration discriminator": (
        lambda: discriminators.DurationDiscriminatorV1(8, 8, 3, 0.1),
        r"holds a duration discriminator \(DUR\), but a synthesizer",
    ),
    "no network": (lambda: torch.nn.Linear(2, 2), "holds no network of VITS"),
    "another predictor": (lambda: generator(model={"use_sdp": True}), "duration predictor: stochastic.*deterministic"),
    "noise": (
        lambda: generator(model={"use_duration_noise": True}),
        "deterministic with noise; the config's: deterministic",
    ),
    "speakers": (lambda: generator(tiny.MANY_VOICES), "speakers: 2; the config's: a single voice"),
    "width": (lambda: generator(model={"filter_channels": 32}), r"conv_1.weight has shape \[32, 8, 3\].*\[16, 8, 3\]"),
    "depth": (lambda: generator(model={"n_layers": 2}), "weights are missing.*attn_layers.2"),
    "symbols": (lambda: generator(data={"extra_symbols": "щ"}), r"enc_p.emb.weight has shape \[179, 8\]"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mismatch_is_reported_and_changes_no_weights(case, tmp_path):
    build, complaint = WRONG[case]
    path = tmp_path / "G_5.pth"
    checkpoint.save_checkpoint(build(), None, 1e-3, 1, path)
    net = generator()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(ValueError, match=complaint) as raised:
        checkpoint.load_checkpoint(path, net)
    assert str(raised.value).startswith(str(path))
    assert tiny.equal(net.state_dict(), before)


KINDS = [None, *models.AVAILABLE_FLOW_TYPES]


@pytest.mark.parametrize("theirs", KINDS)
@pytest.mark.parametrize("ours", KINDS)
def test_another_flow_is_rejected(theirs, ours):
    weights = checkpoint.reference_state_dict(generator(flow(theirs)))
    net = generator(flow(ours))
    if theirs == ours or {theirs, ours} == {"mono_layer_inter_residual", "mono_layer_post_residual"}:
        checkpoint.load_weights(net, weights, "G.pth")  # the two have the same names and shapes
        return
    with pytest.raises(ValueError, match="does not fit this config: its flow"):
        checkpoint.load_weights(net, weights, "G.pth")


def test_another_number_of_speakers_is_rejected():
    weights = checkpoint.reference_state_dict(generator(tiny.MANY_VOICES))
    with pytest.raises(ValueError, match="speakers: 2; the config's: 3"):
        checkpoint.load_weights(generator(tiny.MANY_VOICES, data={"n_speakers": 3}), weights, "G.pth")


class Harm:
    """Executes code when it is unpickled."""

    def __reduce__(self):
        import os

        return os.mkdir, ("harmed",)


@pytest.mark.parametrize(
    "content",
    [b"", b"no checkpoint at all", {"model": Harm()}, {"no_model": {}}, [1, 2], {"model": [1]}],
    ids=["empty", "text", "code", "no model", "list", "model is a list"],
)
def test_damaged_and_malicious_files_are_named_and_execute_nothing(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "file.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=r"file\.pth") as refusal:
        checkpoint.read(path)
    assert "weights_only" not in str(refusal.value)  # PyTorch's message advises to execute the file
    assert not (tmp_path / "harmed").exists()


def test_truncated_and_missing_files_are_named(tmp_path):
    path = tmp_path / "half.pth"
    checkpoint.save_checkpoint(generator(), None, 1e-3, 1, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"half\.pth does not load as a checkpoint"):
        checkpoint.read(path)
    with pytest.raises(ValueError, match=r"there is no file .*none\.pth"):
        checkpoint.read(tmp_path / "none.pth")


STRUCTURES = [  # where in a generator's file, and what stands there
    (("model", "enc_p.emb.weight"), None),
    (("model", "enc_p.emb.weight"), [1.0]),
    (("iteration",), "x"),
    (("optimizer",), []),
    (("optimizer", "state"), None),
    (("optimizer", "param_groups"), {}),
    (("optimizer", "param_groups", 0), "x"),
    (("optimizer", "param_groups", 0, "lr"), "x"),
    (("optimizer", "state", 0), [None]),
    (("optimizer", "state", 0, "exp_avg"), torch.zeros(3)),
    (("config",), "x"),
    (("config", "model"), None),
    (("config", "data"), torch.zeros(3)),
    (("state",), [1]),
    (("state", "position"), None),
    (("state", "position", "step"), "x"),
    (("state", "position", "epoch"), None),
    (("state", "position", "unknown"), 1),
    (("state", "random"), 3),
    (("state", "random", 0), None),
    (("state", "random", 0, "cpu"), torch.zeros(2)),
]


@pytest.fixture(scope="module")
def saved_run(tmp_path_factory):
    """The folder of a run of one step."""
    folder = tmp_path_factory.mktemp("run")
    run = trainer.Trainer(tiny.config(), torch.device("cpu"))
    run.step(tiny.batch(tiny.config()))
    run.position.step = 1
    checkpoint.save_run(run, folder)
    return folder


@pytest.mark.parametrize(("place", "value"), STRUCTURES, ids=[".".join(map(str, place)) for place, _ in STRUCTURES])
def test_a_file_of_another_structure_is_named(place, value, saved_run, tmp_path):
    content = torch.load(saved_run / "G_1.pth", weights_only=True)
    shutil.copy(saved_run / "D_1.pth", tmp_path)
    node = content
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value
    torch.save(content, tmp_path / "G_1.pth")
    with pytest.raises(ValueError, match=r"G_1\.pth"):
        checkpoint.resume_run(trainer.Trainer(tiny.config(), torch.device("cpu")), tmp_path)


def test_a_flipped_bit_in_any_record_is_an_error(tmp_path):
    path = tmp_path / "G_1.pth"
    torch.save({"model": {"w": torch.arange(300.0)}, "state": {"step": 12345678}}, path)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as records:
        starts = {record.filename: record.header_offset for record in records.infolist()}
        sizes = {record.filename: record.file_size for record in records.infolist()}
    for name in starts:
        offset = starts[name]
        content = records_begin(whole, offset)
        for position in range(content, content + sizes[name], max(1, sizes[name] // 20)):
            harmed = bytearray(whole)
            harmed[position] ^= 16
            path.write_bytes(harmed)
            with pytest.raises(checkpoint.Unreadable, match="truncated or damaged"):
                checkpoint.read(path)
    path.write_bytes(whole)
    assert checkpoint.read(path)["state"] == {"step": 12345678}


def records_begin(content, offset):
    """Return where the data of a zip record begins whose header is at `offset`."""
    name, extra = (int.from_bytes(content[offset + at : offset + at + 2], "little") for at in (26, 28))
    return offset + 30 + name + extra


@pytest.mark.parametrize("kind", ["before PyTorch 1.6", "without checksums"])
def test_files_without_checksums_load(kind, tmp_path):
    path, content = tmp_path / "G_1.pth", {"model": {"w": torch.arange(300.0)}}
    if kind == "without checksums":
        torch.serialization.set_crc32_options(False)
    try:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "without checksums")
    finally:
        torch.serialization.set_crc32_options(True)
    assert tiny.equal(checkpoint.read(path), content)


def test_a_checkpoint_is_on_the_disk_before_it_replaces_the_old_one(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append("replaced"), replace(a, b)))
    checkpoint.save_checkpoint(generator(), None, 1e-3, 1, tmp_path / "G_1.pth")
    file, replaced, folder = events
    assert Path(file).name.startswith(".G_1.pth") and replaced == "replaced" and folder == str(tmp_path)


def test_a_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "G_1.pth"
    net = generator()
    checkpoint.save_checkpoint(net, None, 1e-3, 1, path)
    before = path.read_bytes()

    def dying(content, file):
        file.write_bytes(b"half of it")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", dying)
    with pytest.raises(OSError, match="no space"):
        checkpoint.save_checkpoint(net, None, 1e-3, 2, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["G_1.pth"]


def test_pruning_keeps_the_newest_the_best_and_later_files(tmp_path):
    for step in (0, 10, 20, 30, 40, 999):
        for kind in ("G", "D", "DUR"):
            (tmp_path / f"{kind}_{step}.pth").touch()
    others = ["D_7.pth.bak", "G_best.pth", "G_voice.pth", "config.json", "other_10.pth", "x_20.txt"]
    for name in others:
        (tmp_path / name).touch()
    kept = [f"{kind}_{step}.pth" for kind in ("G", "D", "DUR") for step in (30, 40, 999)]
    start = [f"{kind}_0.pth" for kind in ("G", "D", "DUR")]  # a run started from these
    for keep in (2, 0):
        checkpoint.prune(tmp_path, keep, 40)
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept + start + others)


def test_the_latest_checkpoint_is_that_of_the_highest_step(tmp_path):
    for name in ("G_9.pth", "G_10.pth", "G_best.pth", "D_11.pth"):
        (tmp_path / name).touch()
    assert checkpoint.latest_checkpoint_path(tmp_path) == str(tmp_path / "G_10.pth")
    assert checkpoint.latest_checkpoint_path(tmp_path, "D_*.pth") == str(tmp_path / "D_11.pth")
    with pytest.raises(ValueError, match=r"has no checkpoint DUR_\*\.pth"):
        checkpoint.latest_checkpoint_path(tmp_path, "DUR_*.pth")


def test_a_plan_copies_matching_weights_and_tells_of_the_others(tmp_path):
    source = tiny.randomise(generator(flow("fft"), tiny.MANY_VOICES))
    net, config = generator(), tiny.config()
    before = {name: value.clone() for name, value in checkpoint.reference_state_dict(net).items()}
    plan = transfer.plan(net, {"model": checkpoint.reference_state_dict(source)}, config, "G_1.pth")
    assert tiny.equal(checkpoint.reference_state_dict(net), before)  # only `apply` changes it
    transfer.apply(net, plan)
    theirs, after = checkpoint.reference_state_dict(source), checkpoint.reference_state_dict(net)
    assert set(plan.states) == set(after) and set(plan.states.values()) == {"loaded", "fresh"}
    for name, value in after.items():
        assert torch.equal(value, (before if plan.states[name] == "fresh" else theirs)[name])
    table = plan.table().splitlines()
    assert table[0].split() == ["loaded", "resized", "renamed", "fresh"]
    assert next(line for line in table if line.startswith("flow")).endswith("not in the file")
    assert "emb_g" in table[-1] and table[-1].startswith("not used of G_1.pth")


def test_rows_follow_symbols_speakers_and_marks():
    """Another table keeps the rows of common symbols, and new speakers begin as the mean of the old ones."""
    theirs = tiny.config(tiny.MANY_VOICES, data={"speakers": {"anna": 0, "bo": 1}})
    ours = tiny.config(
        tiny.MANY_VOICES,
        data={
            "symbols": {"$": 0, "ə": [1], "щ": 2, "a": 3, "#": 4},
            "n_speakers": 3,
            "speakers": {"cy": 0, "bo": 1, "di": 2},
            "add_blank": True,
            "blank_symbol": "#",
        },
    )
    old, new = tiny.randomise(trainer.build_generator(theirs)), trainer.build_generator(ours)
    content = {"model": checkpoint.reference_state_dict(old), "config": dataclasses.asdict(theirs)}
    before = new.enc_p.emb.weight.detach().clone()
    transfer.apply(new, plan := transfer.plan(new, content, ours, "G_1.pth"))
    rows, there = new.enc_p.emb.weight, old.enc_p.emb.weight
    assert torch.equal(rows[3], there[symbols.index("a")]) and torch.equal(rows[1], there[symbols.index("ə")])
    assert torch.equal(rows[[0, 2]], before[[0, 2]])
    mean = old.emb_g.weight.mean(0)
    assert torch.equal(new.emb_g.weight[1], old.emb_g.weight[1]) and torch.allclose(new.emb_g.weight[[0, 2]], mean)
    assert "2 of 5 rows kept by their symbols" in plan.table() and "1 of 3 rows kept by their speakers" in plan.table()


def test_a_plan_converts_folded_weights_and_knows_a_missing_posterior():
    net = tiny.randomise(generator())
    weights = checkpoint.reference_state_dict(net)
    weights = checkpoint.fitted(weights, [name.removesuffix("_g") for name in weights if name.endswith("weight_g")])
    weights = {name: value for name, value in weights.items() if not checkpoint.TRAINING_ONLY.match(name)}
    other = generator()
    transfer.apply(other, plan := transfer.plan(other, {"model": weights}, tiny.config(), "G_1.pth"))
    assert plan.lacks_posterior and "renamed" in plan.states.values()
    folded = [models.modules.remove_weight_norm(each).dec.state_dict() for each in (net, other)]
    assert all(torch.allclose(folded[0][name], folded[1][name], atol=1e-6) for name in folded[0])


def test_the_config_distinguishes_the_two_mono_layer_flows(tmp_path):
    inter, post = ({"model": {"transformer_flow_type": f"mono_layer_{kind}_residual"}} for kind in ("inter", "post"))
    source = tiny.config(inter)
    content = {"config": dataclasses.asdict(source)}
    path = tmp_path / "G_1.pth"
    checkpoint.save_checkpoint(tiny.randomise(trainer.build_generator(source)), None, 1e-3, 1, path, **content)
    same, other = (dataclasses.asdict(tiny.config(kind).model) for kind in (inter, post))
    checkpoint.refuse_other_flow(content, same, "G_1.pth")
    with pytest.raises(ValueError, match=r"G_1\.pth was trained with the flow 'mono_layer_inter_residual'"):
        checkpoint.refuse_other_flow(content, other, "G_1.pth")
    for kind, expected in ((inter, set()), (post, {"flow"})):
        plan = transfer.plan(generator(kind), checkpoint.read(path), tiny.config(kind), "G_1.pth")
        assert {transfer.part_of(name) for name, state in plan.states.items() if state == "fresh"} == expected


def test_a_transfer_without_matching_weights_is_an_error(tmp_path):
    checkpoint.save_checkpoint(discriminators.MultiPeriodDiscriminator(channels=64), None, 1e-3, 1, tmp_path / "D.pth")
    with pytest.raises(ValueError, match=r"D\.pth holds a discriminator.*none of its weights match"):
        transfer.plan(generator(), checkpoint.read(tmp_path / "D.pth"), tiny.config(), "D.pth")
