"""Weights: released checkpoints give the logits of the networks they come from; nothing is ever taken by half."""

import json
import os
import re
import sys

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from timm.layers import resample_abs_pos_embed
from timm.layers.pos_embed_rel import resize_rel_pos_bias_table_simple

import archspec
from archspec.checkpoints import read_checkpoint, save_weights
from archspec.cli import main
from archspec.errors import PluginError, UnknownName, UsageError
from archspec.files import write_whole
from archspec.resolved import fingerprint
from archspec.weights import load_pretrained, register_source, sources

from . import golden
from .golden import DATA

NOMMER = DATA / "nommer.pth"
GOLDEN = ["classes=10"] + [
    f"stages[{stage}].{patch}"
    for stage, (width, heads) in enumerate([(16, 2), (32, 2), (64, 4), (128, 4)])
    for patch in (f"width={width}", "depth=1", f"mixer.heads={heads}")
]
SMALL = ["stages[0].width=24", "stages[0].depth=2", "stages[0].mixer.heads=2", "classes=5"]


def small(size=32, sets=(), seed=0):
    """A vision transformer of two blocks; 32 pixels make 2 x 2 tokens."""
    return archspec.build(archspec.make_plan("vit_tiny", sets=[*SMALL, *sets], size=size), seed=seed)


def weights_of(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(network, weights):
    return all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


def archspec_command(monkeypatch, *arguments):
    """The exit code of a command."""
    monkeypatch.setattr(sys, "argv", ["archspec", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        main()
    return exit_.value.code or 0


@pytest.mark.parametrize(("dct", "params", "skipped"), [("conv", 305060, 2), ("matmul", 305060 - 36864, 6)])
def test_the_released_nommer_gives_its_logits(double, dct, params, skipped):
    # The fixed kernels: 16 channels of (16 + 16) * 64 and 32 of (4 + 4) * 16 values.
    assert 16 * 32 * 64 + 32 * 8 * 16 == 36864
    expected = golden.expected("nommer")
    network = archspec.build(archspec.make_plan("nommer_t", sets=[*GOLDEN, f"stages[:2].mixer.dct={dct}"]))
    report = load_pretrained(network, NOMMER, source="nommer")
    assert sum(parameter.numel() for parameter in network.parameters()) == params
    assert len(report.skipped) == skipped
    with torch.inference_mode():
        logits = network(golden.image())
    torch.testing.assert_close(logits, torch.tensor(expected["logits"]), rtol=0, atol=1e-8)


slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "theirs", "sets", "options"),
    [
        ("vit_tiny", "vit_tiny_patch16_224", ["stages[0].depth=2"], {"depth": 2}),
        (
            "vit_tiny",
            "vit_tiny_patch16_224",
            ["stages[0].depth=1", "stages[0].layer_scale=0.1"],
            {"depth": 1, "init_values": 0.1},
        ),
        pytest.param("vit_tiny", "vit_tiny_patch16_224", [], {}, marks=slow),
        pytest.param("vit_small", "vit_small_patch16_224", [], {}, marks=slow),
        pytest.param("vit_base", "vit_base_patch16_224", [], {}, marks=slow),
        pytest.param("pit_base", "pit_b_224", [], {}, marks=slow),
        pytest.param("mixer_s16", "mixer_s16_224", [], {}, marks=slow),
    ],
)
def test_weights_from_timm_give_its_logits(tmp_path, name, theirs, sets, options):
    torch.manual_seed(0)
    reference = timm.create_model(theirs, **options).eval()
    with torch.no_grad():
        for parameter in reference.parameters():  # so that biases and scales of 0 or 1 count
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    torch.save(reference.state_dict(), tmp_path / "timm.pth")
    network = archspec.build(archspec.make_plan(name, sets=sets))
    report = load_pretrained(network, tmp_path / "timm.pth", source="timm")
    assert not [*report.lines()]
    image = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        wanted = reference(image)
        assert wanted.std() > 0.1
        torch.testing.assert_close(network(image), wanted, rtol=0, atol=1e-5)


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_names_code_is_refused_and_not_run(tmp_path):
    file = tmp_path / "bad.pth"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "args": Malicious(tmp_path / "ran")}, file)
    with pytest.raises(UsageError, match=r"bad\.pth: refused: it names \w+\.mkdir, which is code"):
        read_checkpoint(file)
    assert not (tmp_path / "ran").exists()
    torch.load(file, weights_only=False)  # the test's own pickle does what it says
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "nest",
    [
        lambda weights: weights,
        lambda weights: {"model": weights, "epoch": 3},
        lambda weights: {"state_dict": weights, "optimizer": {"lr": 0.1}},
        lambda weights: {"model_ema": weights},
        lambda weights: {"model_state_dict": weights},
        lambda weights: {"model": {"state_dict": weights}},
        lambda weights: {f"module.{name}": value for name, value in weights.items()},
        lambda weights: {"model": {f"_orig_mod.module.{name}": value for name, value in weights.items()}},
        lambda weights: {f"module._orig_mod.{name}": value for name, value in weights.items()},
    ],
)
def test_the_weights_are_found_wherever_checkpoints_keep_them(tmp_path, nest):
    weights = {"head.bias": torch.arange(3.0), "a.module.b": torch.ones(2)}
    torch.save(nest(weights), tmp_path / "a.pt")
    found = read_checkpoint(tmp_path / "a.pt")
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], weights[name]) for name in weights)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("none.pth", None, "there is no such checkpoint"),
        ("a.npz", lambda file: file.write_bytes(b"x"), "a checkpoint ends in"),
        ("a.pth", lambda file: file.write_bytes(b"x"), "refused|cannot be read"),
        ("a.pth", lambda file: file.write_bytes(NOMMER.read_bytes()[:5000]), "cannot be read"),
        ("a.safetensors", lambda file: file.write_bytes(b"x" * 100), "cannot be read as safetensors"),
        ("a.pth", lambda file: torch.save({"model": {"epoch": 3}}, file), "holds no weights"),
        ("a.pth", lambda file: torch.save([torch.zeros(1)], file), "holds no weights"),
        ("a.pth", lambda file: torch.save({"a": torch.zeros(1), "module.a": torch.ones(1)}, file), "holds a twice"),
    ],
)
def test_a_file_without_readable_weights_is_refused(tmp_path, name, make, message):
    if make:
        make(tmp_path / name)
    with pytest.raises(UsageError, match=message):
        read_checkpoint(tmp_path / name)


def test_whatever_does_not_fit_is_listed_and_nothing_is_written(tmp_path, monkeypatch, capsys):
    weights = weights_of(small(seed=1))
    del weights["stages.0.blocks.0.ffn.body.fc1.bias"], weights["stages.0.class_token.token"]
    weights |= {"extra": torch.zeros(1), "stages.0.blocks.1.mixer.body.proj.weight": torch.zeros(3, 24)}
    weights["stem.body.conv.bias"] = torch.zeros(24, dtype=torch.int64)
    save_file(weights, tmp_path / "in.safetensors")
    lines = [
        "missing: stages.0.class_token.token",
        "missing: stages.0.blocks.0.ffn.body.fc1.bias",
        "unexpected: extra",
        "mismatched: stages.0.blocks.1.mixer.body.proj.weight: (3, 24) in the checkpoint; (24, 24) here",
        "mismatched: stem.body.conv.bias: torch.int64 in the checkpoint; torch.float32 here",
    ]

    network = small()
    before = weights_of(network)
    with pytest.raises(UsageError) as refusal:
        load_pretrained(network, tmp_path / "in.safetensors")
    assert "2 missing, 1 unexpected, 2 mismatched\n" in str(refusal.value)
    assert sorted(line.strip() for line in str(refusal.value).splitlines()[1:]) == sorted(lines)
    assert same(network, before)

    out = tmp_path / "out.safetensors"
    sets = [part for patch in SMALL for part in ("--set", patch)]
    code = archspec_command(
        monkeypatch, "convert", "vit_tiny", tmp_path / "in.safetensors", "-o", out, "--size", 32, *sets
    )
    assert code == 2
    printed = capsys.readouterr().err
    assert all(line in printed for line in lines)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.safetensors"]


def test_names_of_another_source_are_suspected(tmp_path):
    save_file({"cls_token": torch.zeros(1)}, tmp_path / "in.safetensors")
    with pytest.raises(UsageError, match=r"another source's\? known: .*nommer.*timm"):
        load_pretrained(small(), tmp_path / "in.safetensors")
    with pytest.raises(UnknownName, match="did you mean 'timm'"):
        load_pretrained(small(), tmp_path / "in.safetensors", source="tim")


def test_a_source_is_a_list_of_rules(tmp_path, monkeypatch):
    monkeypatch.setattr("archspec.weights._sources", {})
    rules = [("^body_", "stages.0."), ("^end", "stages.{last}.norm.body")]
    register_source("mine", rules=rules, changes=[("token$", lambda x: x[None])], skips=[("^useless$", "as it says")])
    with pytest.raises(PluginError, match="'mine' of weights is registered already"):
        register_source("mine", rules=[])
    assert "mine" in sources()
    wanted = small(seed=1)
    theirs = {name.replace("stages.0.norm.body", "end"): value for name, value in weights_of(wanted).items()}
    theirs = {name.replace("stages.0.", "body_"): value for name, value in theirs.items()}
    theirs["body_class_token.token"] = theirs["body_class_token.token"][0]
    save_file({**theirs, "useless": torch.zeros(1)}, tmp_path / "in.safetensors")
    network = small()
    report = load_pretrained(network, tmp_path / "in.safetensors", source="mine")
    assert same(network, weights_of(wanted))
    assert [*report.lines()] == ["  skipped: useless: as it says"]


def test_two_tensors_of_one_name_are_refused(tmp_path):
    save_file({**weights_of(small()), "cls_token": torch.zeros(1, 1, 24)}, tmp_path / "in.safetensors")
    with pytest.raises(UsageError, match=r"stages\.0\.class_token\.token: stands for the same tensor as cls_token"):
        load_pretrained(small(), tmp_path / "in.safetensors", source="timm")


def test_batch_norm_may_come_without_its_counter(tmp_path):
    network = small(sets=["stem.norm=batch"])
    weights = weights_of(network)
    del weights["stem.body.norm.num_batches_tracked"]
    save_file(weights, tmp_path / "in.safetensors")
    (line,) = load_pretrained(network, tmp_path / "in.safetensors").lines()
    assert "skipped: stem.body.norm.num_batches_tracked" in line
    del weights["stem.body.norm.running_var"]
    save_file(weights, tmp_path / "in.safetensors")
    with pytest.raises(UsageError, match=r"missing: stem\.body\.norm\.running_var"):
        load_pretrained(network, tmp_path / "in.safetensors")


def test_another_classifier_only_when_asked_for(tmp_path):
    ours = small(seed=1)
    save_weights(ours, tmp_path / "in.safetensors")
    network = small(sets=["classes=7"])
    with pytest.raises(UsageError, match=r"0 missing, 0 unexpected, 2 mismatched \(only the classifier") as refusal:
        load_pretrained(network, tmp_path / "in.safetensors")
    assert "mismatched: head.classifier.bias: (5,) in the checkpoint; (7,) here" in str(refusal.value)
    with pytest.raises(UsageError, match="classes is 8, but the network has 7"):
        load_pretrained(network, tmp_path / "in.safetensors", classes=8)
    network.head.classifier.weight.data.fill_(9)
    network.head.classifier.bias.data.fill_(9)
    report = load_pretrained(network, tmp_path / "in.safetensors", classes=7)
    assert [line.split(":")[:2] for line in report.lines()] == [
        ["  reinitialised", " head.classifier.weight"],
        ["  reinitialised", " head.classifier.bias"],
    ]
    assert not network.head.classifier.bias.any()
    assert 0 < network.head.classifier.weight.std() < 0.03
    features = torch.randn(1, 5, 24)
    assert torch.equal(network.head.features(features), ours.head.features(features))
    rest = {name: value for name, value in weights_of(network).items() if "classifier" not in name}
    assert all(torch.equal(value, weights_of(ours)[name]) for name, value in rest.items())
    load_pretrained(same_classes := small(), tmp_path / "in.safetensors", classes=5)
    assert same(same_classes, weights_of(ours))
    (first, second) = load_pretrained(small(sets=["classes=0"]), tmp_path / "in.safetensors", classes=0).lines()
    assert "skipped: head.classifier" in first
    assert "skipped: head.classifier" in second


def test_a_position_embedding_is_resized_as_timm_does(tmp_path):
    ours = archspec.build(archspec.make_plan("vit_tiny", sets=["stages[0].depth=1"]), seed=1)
    save_weights(ours, tmp_path / "in.safetensors")
    network = archspec.build(archspec.make_plan("vit_tiny", sets=["stages[0].depth=1"], size=384))
    report = load_pretrained(network, tmp_path / "in.safetensors")
    assert [*report.lines()] == ["  resized: stages.0.position.embedding: 14 x 14 -> 24 x 24, bicubic"]
    wanted = resample_abs_pos_embed(ours.stages[0].position.embedding, (24, 24), (14, 14), num_prefix_tokens=1)
    assert network.stages[0].position.embedding.shape == (1, 577, 192)
    torch.testing.assert_close(network.stages[0].position.embedding, wanted, rtol=0, atol=1e-6)


def test_an_embedding_of_as_many_positions_but_another_shape_is_resized(tmp_path):
    ours, network = small(size=(32, 128), seed=1), small(size=(128, 32))
    save_weights(ours, tmp_path / "in.safetensors")
    report = load_pretrained(network, tmp_path / "in.safetensors")
    assert [*report.lines()] == ["  resized: stages.0.position.embedding: 2 x 8 -> 8 x 2, bicubic"]
    square = small(size=64)  # without metadata, 2 x 8 positions would pass for 4 x 4
    report = load_pretrained(square, tmp_path / "in.safetensors")
    assert [*report.lines()] == ["  resized: stages.0.position.embedding: 2 x 8 -> 4 x 4, bicubic"]


@pytest.mark.parametrize("count", [1 + 8, 4, 1])
def test_an_embedding_of_no_square_map_is_refused(tmp_path, count):
    network = small()
    save_file(
        {**weights_of(network), "stages.0.position.embedding": torch.zeros(1, count, 24)}, tmp_path / "a.safetensors"
    )
    with pytest.raises(UsageError, match=rf"embedding: \(1, {count}, 24\) in the checkpoint; \(1, 5, 24\) here"):
        load_pretrained(network, tmp_path / "a.safetensors")


def test_a_table_of_relative_positions_is_resized_as_timm_does(tmp_path):
    def windowed(window, heads=2):
        mixer = f"stages[0].mixer={{type: window, heads: {heads}, window: {window}}}"
        return small(64, ["stages[0].class_token=false", "head.pool=mean", mixer], seed=window)

    ours, network = windowed(2), windowed(4)
    save_weights(ours, tmp_path / "in.safetensors")
    report = load_pretrained(network, tmp_path / "in.safetensors")
    name = "stages.0.blocks.1.mixer.body.bias_table"
    assert f"  resized: {name}: window 2 -> 4, bicubic" in report.lines()
    wanted = resize_rel_pos_bias_table_simple(ours.state_dict()[name], (4, 4), (49, 2))
    torch.testing.assert_close(network.state_dict()[name], wanted, rtol=0, atol=1e-6)
    with pytest.raises(UsageError, match=r"bias_table: \(9, 2\) in the checkpoint; \(49, 3\) here"):
        load_pretrained(windowed(4, heads=3), tmp_path / "in.safetensors")


def test_convert_writes_what_build_reads(tmp_path, monkeypatch, capsys):
    out = tmp_path / "nommer.safetensors"
    sets = [part for patch in GOLDEN for part in ("--set", patch)]
    assert archspec_command(monkeypatch, "convert", "nommer_t", NOMMER, "--from", "nommer", "-o", out, *sets) == 0
    printed = capsys.readouterr().out
    assert "136 tensors loaded" in printed
    assert len(re.findall("skipped: .*relative_position_index", printed)) == 2
    plan = archspec.make_plan("nommer_t", sets=GOLDEN)
    with safe_open(out, "pt") as file:
        metadata = json.loads(file.metadata()["archspec"])
    assert (metadata["spec"], metadata["fingerprint"]) == ("nommer_t", fingerprint(plan.spec))
    reference = archspec.build(plan)
    load_pretrained(reference, NOMMER, source="nommer")
    assert same(reference, load_file(out))

    again = tmp_path / "again.safetensors"
    assert archspec_command(monkeypatch, "build", "nommer_t", "--weights", out, "--save", again, *sets) == 0
    assert again.read_bytes() == out.read_bytes()


def test_convert_with_other_classes(tmp_path, monkeypatch, capsys):
    command = ["convert", "vit_tiny", tmp_path / "in.safetensors", "--size", 32, "-o", tmp_path / "out.safetensors"]
    command += [part for patch in SMALL for part in ("--set", patch)]
    save_weights(small(seed=1), tmp_path / "in.safetensors")
    files = []
    for _ in range(2):
        assert archspec_command(monkeypatch, *command, "--classes", 9) == 0
        files.append((tmp_path / "out.safetensors").read_bytes())
    assert files[0] == files[1]
    assert "reinitialised: head.classifier.weight: (5, 24) in the checkpoint; (9, 24) here" in capsys.readouterr().out
    assert load_file(tmp_path / "out.safetensors")["head.classifier.weight"].shape == (9, 24)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["convert", "vit_tiny", "none.pth", "-o", "a.safetensors"], "none.pth: there is no such checkpoint"),
        (["convert", "vit_tiny", "none.pth", "-o", "a.pth"], "try a.safetensors"),
        (["build", "vit_tiny", "--save", "a.bin"], "try a.safetensors"),
        (["build", "vit_tiny", "--save", "a.safetensors", "--plan-only"], "--plan-only builds no weights"),
        (["build", "vit_tiny", "--weights", "a.safetensors", "--plan-only"], "--plan-only builds no weights"),
    ],
)
def test_commands_refuse_in_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert archspec_command(monkeypatch, *arguments) == 2
    assert message in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "a.safetensors"
    save_weights(small(), file)
    old = file.read_bytes()

    def interrupted(handle):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            save_weights(small(seed=1), file)
    assert [*tmp_path.iterdir()] == [file]
    assert file.read_bytes() == old


def test_weights_that_cannot_be_written_are_an_error_of_one_line(tmp_path):
    (tmp_path / "a").write_text("a file where a folder is needed")
    with pytest.raises(UsageError, match=r"a/b\.safetensors: cannot be written"):
        save_weights(small(), tmp_path / "a" / "b.safetensors")


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_files_get_the_mode_that_the_umask_asks_for(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_whole(tmp_path / "file", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode


def test_tensors_that_are_shared_are_saved_once_and_found_again(tmp_path):
    def tied(seed):
        network = small(seed=seed)
        blocks = network.stages[0].blocks
        blocks[1].ffn.body.fc1.weight = blocks[0].ffn.body.fc1.weight
        return network

    ours, network = tied(1), tied(2)
    save_weights(ours, tmp_path / "in.safetensors")
    load_pretrained(network, tmp_path / "in.safetensors")
    assert same(network, weights_of(ours))
