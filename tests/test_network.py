"""A network is an ordinary module with the surface that timm's users know."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay

import archspec.timm
from archspec import api
from archspec.errors import UsageError
from archspec.loading import load_spec

MICRO = "nommer_micro"


@pytest.fixture
def network():
    return api.build(MICRO, seed=0)


@pytest.fixture
def image():
    return torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))


def test_a_seed_gives_the_weights_and_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    first = torch.rand(1)
    torch.manual_seed(5)
    one, other, third = (api.build(MICRO, seed=seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.rand(1), first)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not all(torch.equal(one[name], third[name]) for name in one)


def test_initial_values_are_those_of_the_papers():
    state = api.build("nommer_t").state_dict()
    qkv = state["stages.3.blocks.0.mixer.body.qkv.weight"]
    assert qkv.std() == pytest.approx(0.02, rel=0.05)
    assert not state["stages.3.blocks.0.ffn.body.fc1.bias"].any()
    assert state["stages.3.class_token.token"].std() == pytest.approx(1, rel=0.2)
    assert state["stages.2.position.embedding"].std() == pytest.approx(1, rel=0.02)


def test_drop_path_grows_linearly_over_all_blocks():
    rates = [step.drop_path for step in api.make_plan("nommer_t").steps() if step.unit.role == "block"]
    assert rates == pytest.approx([0.1 * i / 13 for i in range(14)])


def test_drop_path_drops_whole_images_and_keeps_the_mean():
    from archspec.modules import DropPath

    torch.manual_seed(0)
    dropped = DropPath(0.25).train()(torch.ones(4000, 3, 2))
    values = dropped[:, 0, 0]
    assert torch.equal(dropped, values[:, None, None].expand_as(dropped))
    assert values.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert values.mean() == pytest.approx(1, abs=0.05)
    assert torch.equal(DropPath(0.25).eval()(torch.ones(2, 3, 2)), torch.ones(2, 3, 2))


def test_intermediates_are_what_the_stages_give(network, image):
    seen = []
    for stage in network.stages:
        stage.register_forward_hook(lambda module, inputs, output: seen.append(output[0]))
    with torch.inference_mode():
        last, maps = network.forward_intermediates(image)
        assert torch.equal(network.forward_head(last), network(image))
    for tokens, feature, info in zip(seen, maps, network.feature_info, strict=False):
        assert feature.shape[1] == info["num_chs"]
        assert feature.shape[2:] == (32 // info["reduction"], 32 // info["reduction"])
        assert torch.equal(feature.flatten(2).mT, tokens[:, -feature[0, 0].numel() :])


def test_timm_makes_it_by_name_with_its_own_arguments(image):
    network = timm.create_model(f"archspec_{MICRO}", num_classes=3, in_chans=2, img_size=(48, 32), drop_path_rate=0.5)
    assert network(torch.randn(2, 2, 48, 32)).shape == (2, 3)
    assert network.default_cfg["input_size"] == (2, 48, 32)
    assert "archspec_nommer_t" in timm.list_models("archspec_*")
    with pytest.raises(TypeError, match="patch_size"):
        timm.create_model(f"archspec_{MICRO}", patch_size=3)


def test_timm_registers_any_spec_file(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("archspec: 1\nextends: nommer_micro\nclasses: 4\n")
    assert archspec.timm.register(file) == "archspec_mine"
    assert timm.create_model("archspec_mine").get_classifier().out_features == 4


def test_features_only_gives_the_chosen_stages(image):
    features = timm.create_model(f"archspec_{MICRO}", features_only=True, out_indices=(0, 2)).eval()
    assert features.feature_info.channels() == [16, 64]
    assert [list(feature.shape[1:]) for feature in features(image)] == [[16, 16, 16], [64, 4, 4]]
    assert not any(name.startswith(("model.stages.3", "model.head")) for name, _ in features.named_parameters())


def test_features_of_a_single_stage_are_its_blocks():
    sets = ["input.size=32", "stages[0].width=32", "stages[0].mixer.heads=2", "stages[0].depth=3"]
    network = api.build(load_spec("vit_tiny", sets=sets))
    image = torch.randn(1, 3, 32, 32)
    seen = []
    for block in network.stages[0].blocks:
        block.register_forward_hook(lambda module, inputs, output: seen.append(output[0]))
    maps = network.forward_intermediates(image, indices=[0, -1], intermediates_only=True)
    assert [info["reduction"] for info in network.feature_info] == [16, 16, 16]
    for feature, tokens in zip(maps, (seen[0], seen[2]), strict=True):
        assert torch.equal(feature.flatten(2).mT, tokens[:, 1:])


@pytest.mark.parametrize("indices", [[4], [-5], []])
def test_an_index_that_is_not_there_is_refused(network, image, indices):
    with pytest.raises(UsageError, match="there are 4 maps"):
        network.forward_intermediates(image, indices=indices)


def test_the_classifier_can_be_exchanged(network, image):
    features = network.forward_head(network.forward_features(image), pre_logits=True)
    network.reset_classifier(7)
    assert network(image).shape == (2, 7)
    assert network.num_classes == 7
    assert torch.equal(network.get_classifier()(features), network(image))
    network.reset_classifier(0)
    assert torch.equal(network(image), features)


def test_a_backbone_alone_gives_its_last_map():
    network = api.build(load_spec(MICRO, sets=["head=none"]))
    image = torch.randn(2, 1, 32, 32)
    assert network(image).shape == (2, 64, 4, 4)
    assert torch.equal(network(image), network.forward_intermediates(image, intermediates_only=True)[-1])


def test_checkpointing_changes_no_gradient(network, image):
    plain = copy.deepcopy(network)
    network.set_grad_checkpointing()
    gradients = []
    for one in (plain, network):
        torch.manual_seed(0)
        one.train()(image).sum().backward()
        gradients.append([parameter.grad for parameter in one.parameters() if parameter.grad is not None])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_layer_decay_goes_from_the_stem_to_the_head(network):
    scale = {}
    for group in param_groups_layer_decay(network, layer_decay=0.5):
        for parameter in group["params"]:
            name = next(name for name, other in network.named_parameters() if other is parameter)
            scale[name] = group["lr_scale"]
    assert scale["stem.body.conv.weight"] == min(scale.values())
    assert scale["head.classifier.weight"] == 1
    depth = [scale[f"stages.{index}.blocks.0.ffn.body.fc1.weight"] for index in range(4)]
    assert depth == sorted(depth)
    assert len(set(depth)) == 4
    assert scale["stages.1.downsample.body.conv.weight"] == depth[1]
    assert scale["stages.3.norm.body.weight"] == depth[3]


def test_tokens_embeddings_and_bias_tables_do_not_decay(network):
    exempt = network.no_weight_decay()
    assert "stages.3.class_token.token" in exempt
    assert "stages.2.position.embedding" in exempt
    assert any(name.endswith("bias_table") for name in exempt)
    assert not any(name.endswith(("qkv.weight", "fc1.weight")) for name in exempt)
