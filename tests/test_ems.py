"""EMSNet: the published counts, each branch against plain computations, other sizes, ablations."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import archspec
from archspec.blocks.c_mhsa import ConvAttention
from archspec.blocks.coordinate_conv import CoordinateConv
from archspec.blocks.ems import EMS, Sparse
from archspec.errors import OptionError

DOUBLE = torch.float64


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def randomised(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.4)
    return module.double().eval()


def image(channels, height, width, count=2):
    return torch.randn(count, channels, height, width, dtype=DOUBLE)


# Counts: parameters in millions and GMACs of one reading of the dissertation, counted apart from this code; in brackets
# what is printed there. The parameters of "without fusion" and "without channel splitting" cannot be met.
STATIC = ("dynamic=[]", "gate=false")
ROWS = {
    "table 3.5, baseline (2.09, 0.48)": (("dynamic=[]", "static=false"), 2.105, 0.475),
    "whitening (2.24, 0.51)": ((*STATIC, "depthwise=false", "scales=[1]", "shares=[1]"), 2.255, 0.505),
    "p = 2 (2.41, 0.53)": ((*STATIC, "scales=[2, 1]", "shares=[1, 1]"), 2.402, 0.531),
    "p = 4 (2.38, 0.53)": (STATIC, 2.372, 0.528),
    "gated aggregation (2.68, 0.59)": (("dynamic=[]",), 2.671, 0.587),
    "C-MHSA (3.10, 0.55)": (("dynamic=[c_mhsa]",), 3.104, 0.545),
    "global attention (2.56, 0.54)": ((), 2.563, 0.533),
    "table 3.7, 1/2 1/4 1/4 (2.59, 0.55)": (("shares=[2, 1, 1]",), 2.582, 0.534),
    "table 3.7, 1/4 1/4 1/2 (2.59, 0.55)": (("shares=[1, 1, 2]",), 2.585, 0.534),
    "table 3.9, without fusion (2.12, 0.52)": (("fusion=false",), 2.488, 0.519),
    "table 3.9, without channel splitting (4.45, 0.81)": (("split=false", "head_width=16"), 4.791, 0.783),
}


def in_millions(name, *sets):
    cost = archspec.count(archspec.make_plan(name, sets=sets))
    return round(cost.params / 1e6, 3), round(cost.macs / 1e9, 3)


@pytest.mark.parametrize("row", ROWS)
def test_the_rows_of_the_ablations(row):
    patches, params, gmacs = ROWS[row]
    assert in_millions("emsnet_xxtiny", *(f"defaults.mixer.{patch}" for patch in patches)) == (params, gmacs)


@pytest.mark.parametrize(
    ("name", "params", "gmacs"),
    [("xxtiny", 2.563, 0.533), ("tiny", 5.468, 1.856), ("xtiny", 2.314, 0.693), ("xtiny_192", 2.963, 0.720)],
)
def test_the_published_networks(name, params, gmacs):
    assert in_millions(f"emsnet_{name}") == (params, gmacs)


def test_parameters_of_a_mixer_by_hand():
    """Width 32 on 56×56: c = 16 in the static branch, 8 in each operator, 2 heads."""
    c, n, o, heads = 16, 4, 8, 2
    part = n * 2 * n + 2 * n * (7 + 7)
    static = c * c + 49 * c + 2 * part + 2 * n * (4 + 16) + 2 * c * c
    c_mhsa = o * o + 9 * o + o * 81 * heads + o * o + 16 * o
    distant = o * o + 3 * o * o + o * o + 36 * o
    module = EMS(32, (56, 56), nn.GELU)
    expected = 2 * 32 * 32 + static + c_mhsa + distant + c * c
    assert sum(parameter.numel() for parameter in module.parameters()) == expected


# Parts against plain loops.
@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(6, 6), (5, 7), (1, 2), (1, 1)])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (3, 1), (5, 3)])
def test_c_mhsa_is_its_loops(height, width, kernel, stride):
    module, x = randomised(ConvAttention(8, heads=2, kernel=kernel, stride=stride)), image(8, height, width)
    reach, area, d = kernel // 2, kernel**2, 4
    values = torch.einsum("oc,bchw->bohw", module.values.weight, x)
    padded = F.pad(x, (reach,) * 4)
    expected = torch.zeros_like(x)
    offsets = list(itertools.product(range(kernel), repeat=2))
    for b in range(2):
        for top in range(0, height, stride):
            for left in range(0, width, stride):
                seen = padded[b, :, top : top + kernel, left : left + kernel]
                summary = (seen * module.depthwise.weight[:, 0]).sum((1, 2))
                scores = (module.weights.weight @ summary).reshape(area, 2, area)  # values, heads, outputs
                for head in range(2):
                    attention = (scores[:, head] / math.sqrt(d)).exp()
                    attention = attention / attention.sum(0)
                    for j, i in itertools.product(range(area), repeat=2):
                        there = (top + offsets[j][0] - reach, left + offsets[j][1] - reach)
                        here = (top + offsets[i][0] - reach, left + offsets[i][1] - reach)
                        if all(0 <= r < height and 0 <= c < width for r, c in (there, here)):
                            part = slice(head * d, head * d + d)
                            expected[b, part, *here] += attention[j, i] * values[b, part, *there]
    torch.testing.assert_close(module(x), expected, rtol=1e-11, atol=1e-11)


@torch.no_grad()
def test_the_coordinate_convolution_is_one_with_kernels_of_rank_one():
    module, x = randomised(CoordinateConv(6, kernel=5)), image(6, 4, 9)
    rank_one = module.along_columns.weight @ module.along_rows.weight  # (6, 1, 5, 5)
    torch.testing.assert_close(module(x), F.conv2d(x, rank_one, padding=2, groups=6))


def pointwise(linear, x):
    return torch.einsum("oc,bchw->bohw", linear.weight, x)


def plain_part(part, x, p):
    """Maxima of p×p, wider, the coordinate convolution, and each value spread over its p×p again."""
    _, n, height, width = x.shape
    rows, columns = math.ceil(height / p), math.ceil(width / p)
    small = torch.stack(
        [x[:, :, r * p : r * p + p, c * p : c * p + p].amax((2, 3)) for r in range(rows) for c in range(columns)],
        dim=-1,
    )
    small = part.mix(pointwise(part.embed, small.unflatten(-1, (rows, columns))))
    y = torch.zeros_like(x)
    for channel, row, column in itertools.product(range(n), range(height), range(width)):
        for m in (2 * channel, 2 * channel + 1):
            kernel = part.spread.weight[m, 0, row % p, column % p]
            y[:, channel, row, column] += small[:, m, row // p, column // p] * kernel
    return y


@torch.no_grad()
@pytest.mark.parametrize("size", [(8, 8), (7, 10), (3, 1)])
def test_the_static_branch_is_its_formula(size):
    module, x = randomised(EMS(16, (8, 8), nn.GELU, dynamic=())), image(16, *size)
    branch = module.branches
    u = F.gelu(pointwise(module.front, x))
    z = pointwise(branch.whiten, u)
    z = F.conv2d(z - z.mean(1, keepdim=True), branch.depthwise.weight, padding=3, groups=16)
    first, _, last = branch.parts.branches
    parts = torch.cat([plain_part(first, z[:, :4], 2), z[:, 4:12], plain_part(last, z[:, 12:], 4)], dim=1)
    gate = 1 / (1 + torch.exp(-pointwise(branch.gate.fuse, parts)))
    torch.testing.assert_close(module(x), pointwise(module.proj, pointwise(branch.gate.project, u) * gate))


def plain_means(x, height, width):
    """Means over windows from floor(i H / h) up to ceil((i + 1) H / h)."""
    H, W = x.shape[2:]
    means = [
        x[:, :, i * H // height : -(-(i + 1) * H // height), j * W // width : -(-(j + 1) * W // width)].mean((2, 3))
        for i, j in itertools.product(range(height), range(width))
    ]
    return torch.stack(means, dim=-1).unflatten(-1, (height, width))


def plain_sparse(branch, x, pooled, step):
    """One operator of the dynamic branch, with every step but C-MHSA written out."""
    y = pointwise(branch.embed, plain_means(x, *pooled))
    if isinstance(branch.operator, ConvAttention):
        y = branch.operator(y)
    else:
        attention, tokens = branch.operator.attention, y.flatten(2).mT
        q, k, v = (tokens @ attention.qkv.weight.T).chunk(3, dim=-1)
        heads = [
            (q[..., s : s + 4] @ k[..., s : s + 4].mT / 2).softmax(-1) @ v[..., s : s + 4]
            for s in range(0, x.shape[1], 4)
        ]
        y = (torch.cat(heads, -1) @ attention.proj.weight.T).mT.unflatten(-1, pooled)
    y = torch.stack(
        [
            torch.kron(one, kernel)
            for one, kernel in zip(y.flatten(0, 1), branch.spread.weight[:, 0].repeat(len(x), 1, 1), strict=True)
        ]
    )
    y = y.unflatten(0, x.shape[:2])
    assert y.shape[2:] == tuple(side * k for side, k in zip(pooled, step, strict=True))
    return F.interpolate(y, size=x.shape[2:], mode="bilinear", align_corners=False)


@torch.no_grad()
@pytest.mark.parametrize(
    ("size", "near", "far"),
    [((12, 9), ((4, 4), (3, 3)), ((3, 3), (4, 3))), ((11, 14), ((4, 5), (3, 3)), ((3, 5), (4, 3)))],
    ids=["the spec's size", "another size"],
)
def test_the_dynamic_branch_is_its_formula(size, near, far):
    """`near`, `far`: map that is seen and step of the propagation, for sides of at most 4 and 3 on the spec's 12×9."""
    module = EMS(16, (12, 9), nn.GELU, static=False, c_mhsa_side=4, global_side=3)
    module, x = randomised(module), image(16, *size)
    u = F.gelu(pointwise(module.front, x))
    c_mhsa, distant = module.branches.operators.branches
    y = torch.cat([plain_sparse(c_mhsa, u[:, :8], *near), plain_sparse(distant, u[:, 8:], *far)], dim=1)
    torch.testing.assert_close(module(x), pointwise(module.proj, pointwise(module.branches.fuse, y)))


@torch.no_grad()
def test_both_branches_stand_side_by_side_or_are_added_up():
    module, x = randomised(EMS(32, (8, 8), nn.GELU)), image(32, 8, 8)
    static, dynamic = module.branches.branches
    u = F.gelu(pointwise(module.front, x))
    expected = torch.cat([static(u[:, :16]), dynamic(u[:, 16:])], dim=1)
    torch.testing.assert_close(module(x), pointwise(module.proj, expected))
    module = randomised(EMS(32, (8, 8), nn.GELU, split=False))
    static, dynamic = module.branches.branches
    u = F.gelu(pointwise(module.front, x))
    near, far = dynamic.operators.branches
    both = pointwise(dynamic.fuse, torch.cat([near(u), far(u)], dim=1))
    torch.testing.assert_close(module(x), pointwise(module.proj, static(u) + both))


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("c_mhsa", {56: (14, 4), 28: (14, 2), 14: (14, 1), 7: (7, 1)}),
        ("global", {56: (10, 6), 28: (10, 3), 14: (10, 2), 7: (7, 1)}),
    ],
)
def test_what_the_attentions_see_in_each_stage(name, seen):
    for side, (pooled, step) in seen.items():
        module = Sparse(8, name, (side, side), {"c_mhsa": 14, "global": 10}[name], 4)
        assert (module.pooled(side, 0), module.spread.stride) == (pooled, (step, step))
        assert module.pooled(side + 4, 1) == math.ceil((side + 4) / step)  # another input size


# Options.
OPTIONS = [
    *({"static": static, "dynamic": dynamic} for static in (True, False) for dynamic in ((), ("c_mhsa",), ("global",))),
    {"static": False},
    {"depthwise": False},
    {"kernel": 3},
    {"scales": (1,), "shares": (1,)},
    {"scales": (2, 1, 4, 8), "shares": (1, 1, 1, 1)},
    {"scales": (3,), "shares": (1,)},
    {"shares": (2, 1, 1)},
    {"expansion": 1},
    {"expansion": 3, "coordinate_kernel": 3},
    {"gate": False},
    {"gate": False, "fusion": False},
    {"fusion": False},
    {"c_mhsa_side": 3, "global_side": 64},
    {"head_width": 2},
    {"split": False},
    {"split": False, "dynamic": ("c_mhsa",), "fusion": False},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("size", [(9, 16), (1, 1)])
def test_every_option_runs_and_learns(options, size):
    module, x = EMS(32, (9, 16), nn.GELU, **options), torch.randn(2, 32, *size, requires_grad=True)
    y = module(x)
    assert y.shape == x.shape
    y.square().sum().backward()
    for name, leaf in [("x", x), *module.named_parameters()]:
        assert leaf.grad is not None, name
        assert leaf.grad.isfinite().all(), name
        assert leaf.grad.any() or size == (1, 1), name


@pytest.mark.parametrize(
    ("width", "options", "message"),
    [
        (33, {}, "split: True cannot divide 33 channels by 2"),
        (34, {"static": False, "dynamic": ("c_mhsa",)}, "head_width: 4 does not divide the operator's width 34.*try 2"),
        (32, {"head_width": 3}, "head_width: 3 does not divide the operator's width 8"),
        (32, {"kernel": 4}, "kernel: 4 is even.*try 5"),
        (32, {"coordinate_kernel": 4}, "coordinate_kernel: 4 is even"),
        (32, {"shares": (1, 1)}, r"shares: \[1, 1\] are 2 for 3 scales"),
        (32, {"shares": (1, 1, 1)}, r"are 3 in all, which does not divide the 16 channels .*15 could"),
        (32, {"dynamic": ("global", "c_mhsa")}, r"dynamic: .* is not in the order.*try \[c_mhsa, global\]"),
        (32, {"split": False, "fusion": False}, "fusion: False leaves twice the width"),
    ],
)
def test_what_does_not_fit_is_refused(width, options, message):
    with pytest.raises(OptionError, match=message):
        EMS(width, (8, 8), nn.GELU, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, "heads: 3 does not"),
        ({"kernel": 2}, "is even"),
        ({"stride": 4}, "stride: 4 is more than the kernel 3"),
    ],
)
def test_c_mhsa_refuses(options, message):
    with pytest.raises(OptionError, match=message):
        ConvAttention(32, **options)


# Networks.
TINY = [f"stages[{i}].{what}" for i in range(4) for what in ("depth=1", f"width={(16, 32, 32, 64)[i]}")] + ["classes=5"]


def tiny(size=64, *sets):
    return archspec.build(archspec.make_plan("emsnet_xxtiny", sets=[*TINY, *sets], size=size))


@torch.no_grad()
@pytest.mark.parametrize("size", [(192, 192), (256, 256), (256, 320), (33, 75)])
def test_other_sizes_run(size):
    network, x = tiny(224), torch.randn(1, 3, *size)
    assert network(x).isfinite().all()
    planned = archspec.build(archspec.make_plan("emsnet_xxtiny", sets=TINY, size=size))
    assert planned(x).isfinite().all()


@torch.no_grad()
@pytest.mark.slow
def test_compiles_in_one_graph():
    network, x = tiny(), torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(torch.compile(network, fullgraph=True, backend="eager")(x), network(x))


@torch.no_grad()
@pytest.mark.slow
def test_export_with_any_number_of_images():
    network, x = tiny(), torch.randn(2, 3, 64, 64)
    exported = torch.export.export(network, (x,), dynamic_shapes={"image": {0: torch.export.Dim("images", min=1)}})
    for images in (x, torch.randn(3, 3, 64, 64)):
        torch.testing.assert_close(exported.module()(images), network(images))


def test_bfloat16_autocast_trains():
    network = tiny().train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = network(torch.randn(4, 3, 64, 64)).float().square().mean()
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
