"""Zero-cost scores: what an untrained network promises, from one batch; the higher, the better.

What holds for all of them: the network is copied, in evaluation mode (no dropout, no stochastic depth), and is left as
it was; batch norms take the batch's own statistics, since the running ones of an untrained network are no statistics.
Norms are known by their calls of torch's functions (batch, layer, group, instance and RMS norm), whatever module makes
them; one that a block writes out by hand is an operation like any other.

B images, C channels, H x W pixels, N activations.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from archspec.cost import count_params
from archspec.errors import EvaluationError, UnknownName, UsageError, nearest
from archspec.modules import Branch
from archspec.training.randomness import given_back, seed_all

ScoreFunction: TypeAlias = Callable[[nn.Module, Tensor, Tensor], float]
ALPHA = 0.01  # how far the Zen-score moves its input


def score(name: str, network: nn.Module, images: Tensor, labels: Tensor, *, seed: int = 0) -> float:
    """A score of a network on a batch of images (B, C, H, W), at least two, and labels (B,).

    The same seed gives the same score. Network, gradients and the global random state are left as they were.
    Raises UnknownName; UsageError for a batch that is none; EvaluationError where the score is not finite.
    """
    function = find_score(name)
    if images.ndim != 4 or len(images) < 2 or labels.shape != images.shape[:1]:
        shapes = f"images {tuple(images.shape)} and labels {tuple(labels.shape)}"
        raise UsageError(f"{name}: {shapes} where (B, C, H, W) and (B,), B at least 2, are expected")
    copied = _copied(network)
    first = next(copied.parameters(), images)
    with given_back(first.device), torch.enable_grad():
        seed_all(first.device, seed)
        found = function(copied, images.to(first.device, first.dtype), labels.to(first.device))
    if not math.isfinite(found):
        raise EvaluationError(f"{name}: the score is {found}; {_REASONS.get(name, 'a value in the network overflows')}")
    return found


def find_score(name: str) -> ScoreFunction:
    """The score of that name. Raises UnknownName, naming the nearest."""
    if name not in SCORES:
        hint = nearest(name, SCORES) or f"known: {', '.join(SCORES)}"
        raise UnknownName(f"there is no score '{name}' ({hint})")
    return SCORES[name]


def _copied(network: nn.Module) -> nn.Module:
    """A network of its own to work on; the plan, which never changes, is shared."""
    plan = getattr(network, "plan", None)
    copied = copy.deepcopy(network, {id(plan): plan} if plan is not None else {}).eval()
    copied.zero_grad(set_to_none=True)
    return copied


def parameters(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """How many parameters there are, fixed ones included, shared ones once: the baseline that a score has to beat."""
    return float(count_params(network)[0])


def gradient_norm(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The Euclidean norms of the gradients of the batch's cross entropy, summed over the trainable parameters.

    Abdelfattah et al., "Zero-Cost Proxies for Lightweight NAS", section 3.1, https://arxiv.org/abs/2101.08134.
    Every parameter tensor has its norm, biases and scales of norms, too.
    """
    with _Norms(_by_batch):
        F.cross_entropy(network(images), labels).backward()
    gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
    return sum(float(gradient.double().norm()) for gradient in gradients)


def synflow(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The synaptic flow |w| dR/d|w|, summed over the trainable parameters; R is the sum of the outputs for ones.

    Tanaka et al., "Pruning neural networks without any data by iteratively conserving synaptic flow", section 5,
    https://arxiv.org/abs/2006.05467; as a score by Abdelfattah et al., section 3.2, https://arxiv.org/abs/2101.08134.
    All weights take their absolute values, biases and class tokens, too; fixed bases that are no parameters stay.
    Norms are left out: statistics of one constant image would undo what the layers before them say. Softmax gives
    equal weights, as it does to equal tokens, so that no flow passes through queries and keys, whose products would
    drown the others; the rest stays what it is. In double precision, as R is a product over the depth.
    """
    network = network.double()
    with torch.no_grad():
        for weight in network.parameters():
            weight.abs_()
    ones = torch.ones_like(images[:1], dtype=torch.float64)  # (1, C, H, W)
    with _Norms(_left_out), _EqualWeights():
        network(ones).sum().backward()
    trained = [weight for weight in network.parameters() if weight.grad is not None]
    return sum(float((weight.detach() * cast("Tensor", weight.grad)).sum()) for weight in trained)


def naswot(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """log |det K|, K[i, j] the number of activations whose codes agree for the images i and j.

    Mellor et al., "Neural Architecture Search without Training", section 3, https://arxiv.org/abs/2006.04647. A ReLU's
    code is whether it lets its input through. Here the code of any rectifier (ReLU, GELU, SiLU, hard swish, ELU, and
    their like) is whether its input is more than 0; sigmoids, softmax and maxima have none.
    """
    with torch.no_grad(), _Norms(_by_batch), _Codes(len(images)) as codes:
        network(images)
    if not codes.found:
        raise EvaluationError("naswot: the network has no activation such as ReLU or GELU to take codes from")
    return float(torch.linalg.slogdet(codes.agreement).logabsdet)


def zen(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """log E |f(x) - f(x + a e)| + the sum over norms of log s: how far noise e moves the features of noise x.

    Lin et al., "Zen-NAS: A Zero-Shot NAS for High-Performance Image Recognition", algorithm 1 (Frobenius norm,
    a = 0.01), https://arxiv.org/abs/2102.01063. f are the features in front of the head's pooling, with weights
    (convolutions, linears, tokens, tables) drawn from N(0, 1), biases 0, and the links around mixers and FFNs removed;
    those inside a part stay. x and e are Gaussian; E is the mean over as many as there are images, whose values do not
    count. s^2 is the mean of the variances that a norm divides by: for a batch norm, as published, those of its
    channels over the batch; for a layer or group norm those of the tokens or groups; an RMS norm's are mean squares.
    In double precision.
    """
    network = network.double()
    _draw_weights(network)
    for module in network.modules():
        if isinstance(module, Branch):
            module.register_forward_hook(_without_link)
    features = getattr(network, "forward_features", network)
    x = torch.randn(images.shape, dtype=torch.float64).to(images.device)
    noise = torch.randn(images.shape, dtype=torch.float64).to(images.device)
    scales: list[float] = []
    with torch.no_grad():
        with _Norms(_by_batch, lambda variance: scales.append(0.5 * math.log(variance) if variance > 0 else -math.inf)):
            still = features(x)
        with _Norms(_by_batch):
            moved = features(x + ALPHA * noise)
    distance = float((still - moved).flatten(1).norm(dim=1).mean())
    return (math.log(distance) if distance > 0 else -math.inf) + sum(scales)


SCORES: dict[str, ScoreFunction] = {
    "params": parameters,
    "gradient_norm": gradient_norm,
    "synflow": synflow,
    "naswot": naswot,
    "zen": zen,
}
_REASONS = {"naswot": "two images of the batch have the same codes everywhere (take other images)"}


def _draw_weights(network: nn.Module) -> None:
    """N(0, 1) for trainable weights of two dimensions or more, 0 for biases; the scales of norms and layers stay."""
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.requires_grad and weight.ndim > 1:
                weight.copy_(torch.randn(weight.shape, dtype=torch.float64))
            elif weight.requires_grad and name.rpartition(".")[2] == "bias":
                weight.zero_()


def _without_link(module: nn.Module, inputs: tuple[Any, ...], outputs: tuple[Tensor, Any]) -> tuple[Tensor, Any]:
    """A branch's output without the input that was added to it."""
    return outputs[0] - inputs[0], outputs[1]


# torch's names for ReLU, GELU, SiLU, hard swish, leaky ReLU, ELU (and CELU, SELU), ReLU6, Mish, softplus and PReLU
_RECTIFIERS = frozenset(
    f"aten::{name}"
    for name in (
        "relu",
        "gelu",
        "silu",
        "hardswish",
        "leaky_relu",
        "elu",
        "hardtanh",
        "mish",
        "softplus",
        "_prelu_kernel",
    )
)


class _Codes(TorchDispatchMode):
    """Sees every activation that a network computes, module or function, and whether its inputs are positive."""

    def __init__(self, images: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.images, self.found = images, False
        self.agreement = torch.zeros(images, images, dtype=torch.float64)  # (B, B)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func.name().partition(".")[0].removesuffix("_") in _RECTIFIERS and len(args[0]) % self.images == 0:
            self.add(args[0].reshape(self.images, -1) > 0)
        return func(*args, **(kwargs or {}))

    def add(self, codes: Tensor) -> None:
        """Codes (B, N) of one activation layer; windows and tokens of an image stand behind one another."""
        active = codes.double()
        both = active @ active.T + (1 - active) @ (1 - active).T  # (B, B)
        self.agreement += both.cpu()
        self.found = True


Normalise: TypeAlias = Callable[[Any, tuple[Any, ...], dict[str, Any]], Tensor]


class _Norms(TorchFunctionMode):
    """Puts `instead` in the place of torch's norms; `seen` hears of the mean variance that each would divide by."""

    def __init__(self, instead: Normalise, seen: Callable[[float], None] | None = None) -> None:
        super().__init__()
        self.instead, self.seen = instead, seen

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func not in _VARIANCES:
            return func(*args, **(kwargs or {}))
        if self.seen:
            self.seen(float(_VARIANCES[func](*args, **(kwargs or {}))))
        return self.instead(func, args, kwargs or {})


def _by_batch(norm: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The norm; a batch norm by the statistics of its input, which leaves the running ones alone."""
    if norm is not F.batch_norm:
        return cast("Tensor", norm(*args, **kwargs))
    return _batch_norm(*args, **kwargs)


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`torch.nn.functional.batch_norm`, in training whatever it was asked."""
    return F.batch_norm(input, None, None, weight, bias, training=True, eps=eps)


def _left_out(norm: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    return cast("Tensor", args[0] if args else kwargs["input"])


class _EqualWeights(TorchFunctionMode):
    """Every softmax gives equal weights; attention is the mean of the values."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            return _mean_of_values(*args, **(kwargs or {}))
        if func in (F.softmax, torch.softmax, Tensor.softmax):
            return _equal(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _mean_of_values(query: Tensor, key: Tensor, value: Tensor, *rest: Any, **options: Any) -> Tensor:
    """Values (..., S, d) -> (..., L, d)."""
    return value.mean(-2, keepdim=True).expand(*value.shape[:-2], query.shape[-2], value.shape[-1])


def _equal(input: Tensor, dim: int, *rest: Any, **options: Any) -> Tensor:
    return torch.full_like(input, 1 / input.shape[dim], requires_grad=False)


def _over_batch(input: Tensor, *rest: Any, **options: Any) -> Tensor:
    return input.transpose(0, 1).flatten(1).var(1, correction=0).mean()


def _over_last(input: Tensor, normalized_shape: Any, *rest: Any, **options: Any) -> Tensor:
    return input.flatten(-len(normalized_shape)).var(-1, correction=0).mean()


def _over_groups(input: Tensor, num_groups: int, *rest: Any, **options: Any) -> Tensor:
    return input.reshape(len(input), num_groups, -1).var(-1, correction=0).mean()


def _over_map(input: Tensor, *rest: Any, **options: Any) -> Tensor:
    return input.flatten(2).var(-1, correction=0).mean()


def _squares(input: Tensor, *rest: Any, **options: Any) -> Tensor:
    return input.square().mean()


# The mean of the variances that a norm divides by, from what it is called with.
_VARIANCES: dict[Any, Callable[..., Tensor]] = {
    F.batch_norm: _over_batch,
    F.layer_norm: _over_last,
    F.group_norm: _over_groups,
    F.instance_norm: _over_map,
    F.rms_norm: _squares,
}
