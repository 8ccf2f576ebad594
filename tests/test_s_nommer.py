"""S-NomMer: what is nominated, what learns, the ablations, and the counts."""

import math

import pytest
import torch
import torch.nn.functional as F

from archspec.blocks.s_nommer import HardChoice, PooledAttention, SNomMer
from archspec.errors import OptionError


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def build(**options):
    module = SNomMer(16, **({"heads": 2, "window": 3, "block": 4} | options)).double()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.requires_grad and "bn" not in name and "norm" not in name:
                parameter.normal_(std=0.3)
    return module


def image(height=8, width=12):
    return torch.randn(2, 16, height, width, dtype=torch.float64)


def contexts(module, x):
    return [candidate(x) for candidate in module.candidates.values()]


@pytest.mark.parametrize("training", [True, False])
def test_one_context_is_nominated_at_each_position(training):
    module = build().train(training)
    nominated = module.nominator.nominate(contexts(module, image()))
    assert nominated.shape == (2, 8, 12, 3)
    torch.testing.assert_close(nominated, F.one_hot(nominated.argmax(-1), 3).double(), rtol=0, atol=1e-12)
    assert (nominated.sum((0, 1, 2)) > 0).all()  # the example is no trivial one


@torch.no_grad()
def test_evaluation_hands_on_the_context_of_the_highest_score():
    module, x = build().eval(), image()
    cnn, local, distant = contexts(module, x)
    scores = F.linear((cnn + local + distant).permute(0, 2, 3, 1), module.nominator.score.weight)
    winner = (scores + module.nominator.score.bias).argmax(-1)
    y = module(x)
    for b, row, column in torch.cartesian_prod(*map(torch.arange, winner.shape)).tolist():
        choice = (cnn, local, distant)[winner[b, row, column]]
        assert torch.equal(y[b, :, row, column], choice[b, :, row, column])


def test_training_samples_by_the_softmax_of_the_scores():
    chances = torch.tensor([0.5, 0.3, 0.2])
    frequencies = HardChoice()(chances.log().expand(20_000, 3)).mean(0)
    torch.testing.assert_close(frequencies, chances, rtol=0, atol=0.02)


def test_all_contexts_and_the_nominator_learn():
    module = build()
    module(image()).square().sum().backward()
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name
        else:
            assert ".transform." in name


ABLATIONS = [
    {"candidates": ("cnn",)},
    {"candidates": ("local",)},
    {"candidates": ("global",)},
    {"candidates": ("cnn", "local")},
    {"candidates": ("local", "global"), "nominator": "softmax"},
    {"global_context": "pool"},
    {"global_context": "pool", "nominator": "sum"},
    {"nominator": "sum"},
    {"nominator": "softmax"},
    {"dct": "matmul"},
]


@pytest.mark.parametrize("options", ABLATIONS, ids=str)
def test_ablations_run_and_learn(options):
    module = build(**options)
    y = module(image())
    assert y.shape == (2, 16, 8, 12)
    y.square().sum().backward()
    gradients = [parameter.grad for parameter in module.parameters() if parameter.requires_grad]
    assert all(gradient.isfinite().all() and gradient.any() for gradient in gradients)


def batch_norm(x, norm):
    scale = norm.weight / (norm.running_var + 1e-5).sqrt()
    return (x - norm.running_mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]


def with_statistics(module):
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            for tensor in (part.weight.data, part.bias.data, part.running_mean, part.running_var):
                tensor.uniform_(0.5, 1.5)
    return module.eval()


def test_cnn_context():
    module, x = with_statistics(build()).candidates["cnn_context"], image()
    y = batch_norm(torch.einsum("oc,bchw->bohw", module.conv1.weight[:, :, 0, 0], x), module.bn1).relu()
    patches = F.unfold(y, 3, padding=1).unflatten(2, y.shape[2:])
    y = batch_norm(torch.einsum("ok,bkhw->bohw", module.conv2.weight.flatten(1), patches), module.bn2).relu()
    y = batch_norm(torch.einsum("oc,bchw->bohw", module.conv3.weight[:, :, 0, 0], y), module.bn3)
    torch.testing.assert_close(module(x), (x + y).relu())


@pytest.mark.parametrize("form", ["conv", "matmul"])
def test_global_context(form):
    torch.set_default_dtype(torch.float64)
    try:
        module, x = with_statistics(build(dct=form)).candidates["global_context"], image()
        place = torch.arange(4.0) + 0.5
    finally:
        torch.set_default_dtype(torch.float32)
    basis = torch.stack([torch.full_like(place, 0.5), torch.cos(place * math.pi / 4) / math.sqrt(2)])  # (l, N)
    blocks = x.reshape(2, 16, 2, 4, 3, 4)  # (B, C, h, N, w, N)
    low = torch.einsum("bchiwj,vi,uj->bcvuhw", blocks, basis, basis).reshape(2, 8, 8, 2, 3)
    y = torch.einsum("gok,bgkhw->bgohw", module.reduce.weight.reshape(8, 2, 8), low).reshape(2, 16, 2, 3)
    y = module.attention(batch_norm(y, module.norm).flatten(2).mT).mT.reshape(2, 8, 2, 2, 3)
    y = torch.einsum("gok,bgkhw->bgohw", module.expand.weight.reshape(8, 8, 2), y).reshape(2, 16, 2, 2, 2, 3)
    y = torch.einsum("bcvuhw,vi,uj->bchiwj", y, basis, basis).reshape(x.shape)
    torch.testing.assert_close(module(x), y, rtol=0, atol=1e-11)


def test_one_context_needs_no_nominator():
    module, x = build(candidates=("local",)).eval(), image()
    assert torch.equal(module(x), module.candidates["local_context"](x))
    assert not [name for name in module.state_dict() if not name.startswith("candidates.local_context.")]


def test_sum_and_soft_mixture():
    x = image()
    module = build(nominator="sum").eval()
    torch.testing.assert_close(module(x), sum(contexts(module, x)))
    module = build(nominator="softmax").eval()
    parts = torch.stack(contexts(module, x))
    scores = module.nominator.score(parts.sum(0).permute(0, 2, 3, 1))
    torch.testing.assert_close(module(x), (parts * scores.softmax(-1).permute(3, 0, 1, 2)[:, :, None]).sum(0))


def test_pooled_context():
    module, x = PooledAttention(16, heads=2, block=4).double(), image(6, 8)
    blocks = [x[:, :, :4, :4], x[:, :, :4, 4:], x[:, :, 4:, :4], x[:, :, 4:, 4:]]
    tokens = torch.stack([block.amax((2, 3)) for block in blocks], dim=1)  # (B, 4, C)
    small = module.attention(tokens).mT.reshape(2, 16, 2, 2)
    torch.testing.assert_close(module(x), F.interpolate(small, (6, 8), mode="bilinear", align_corners=False))
    assert module(image(3, 2)).shape == (2, 16, 3, 2)  # a map smaller than the block


def test_conv_and_matmul_forms_agree():
    torch.set_default_dtype(torch.float64)
    try:
        released, fast = build().eval(), build(dct="matmul").eval()
    finally:
        torch.set_default_dtype(torch.float32)
    fast.load_state_dict({k: v for k, v in released.state_dict().items() if ".transform." not in k})
    x = image(10, 9)
    torch.testing.assert_close(released(x), fast(x), rtol=0, atol=1e-10)


def test_parameters_by_hand():
    """Width 96, block 8, 2 heads, window 7, expansion 2, 8 groups: the first blocks of NomMer-T."""
    cnn = 96 * 48 + 9 * 48 * 48 + 48 * 96 + 2 * (48 + 48 + 96)
    local = 96 * 288 + 288 + 96 * 96 + 96 + 169 * 2
    distant = 2 * (16 * 96) * 96 // 8 + 2 * 96 + 96 * 288 + 96 * 96 + 96
    nominator = 96 * 3 + 3
    kernels = 2 * (16 * 96) * 64
    with torch.device("meta"):
        released, fast = SNomMer(96, heads=2), SNomMer(96, heads=2, dct="matmul")
    trainable = cnn + local + distant + nominator
    assert sum(p.numel() for p in released.parameters() if p.requires_grad) == trainable
    assert sum(p.numel() for p in released.parameters()) == trainable + kernels
    assert sum(p.numel() for p in fast.parameters()) == trainable


@pytest.mark.parametrize("options", [{}, {"dct": "matmul"}, {"global_context": "pool"}], ids=str)
def test_sizes_that_divide_nothing(options):
    module = build(window=7, block=8, **options)
    assert module(image(30, 26)).shape == (2, 16, 30, 26)
    assert module(image(3, 2)).shape == (2, 16, 3, 2)


@pytest.mark.parametrize("training", [True, False])
def test_meta(training):
    with torch.device("meta"):
        module = SNomMer(16, heads=2).train(training)
        assert module(torch.empty(2, 16, 14, 9)).shape == (2, 16, 14, 9)


@pytest.mark.parametrize("training", [True, False])
def test_bfloat16_autocast(training):
    module = SNomMer(16, heads=2).train(training)
    with torch.autocast("cpu", torch.bfloat16):
        y = module(torch.randn(2, 16, 9, 8))
    assert y.isfinite().all()


def test_channels_last_stays():
    y = build()(image().contiguous(memory_format=torch.channels_last))
    assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cnn_expansion": 3}, "cnn_expansion: 3 does not divide the width 16"),
        ({"groups": 5}, "groups: 5 does not divide the width 16"),
        ({"heads": 3}, "heads: 3 does not divide the width 16"),
        ({"candidates": ("local", "cnn")}, r"is not in the order cnn, local, global.*try \[cnn, local\]"),
        ({"candidates": ("cnn", "cnn")}, r"each at most once.*try \[cnn\]"),
    ],
)
def test_refused(options, message):
    with pytest.raises(OptionError, match=message):
        build(**options)


def test_export():
    module, x = build().eval(), image()
    torch.testing.assert_close(torch.export.export(module, (x,)).module()(x), module(x))


@pytest.mark.slow
@pytest.mark.parametrize("training", [True, False])
def test_compiles_in_one_graph(training):
    module, x = SNomMer(16, heads=2, window=3, block=4).train(training), torch.randn(2, 16, 8, 10)
    compiled = torch.compile(module, fullgraph=True)
    y = compiled(x)
    y.sum().backward()
    if not training:
        torch.testing.assert_close(y, module(x), rtol=1e-4, atol=1e-5)
