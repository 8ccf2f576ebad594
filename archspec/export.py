"""Networks as files that other tools run: torch.export archives and ONNX. A file is kept only if its logits agree."""

from __future__ import annotations

import copy
import tempfile
import warnings
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from archspec.errors import RunError, UsageError
from archspec.files import write_whole

Format = Literal["pt2", "onnx"]
FORMATS: tuple[Format, ...] = get_args(Format)
TOLERANCE = 1e-4  # relative to the largest logit; float32 in another order of summation
NUDGES = 4


def find_format(name: str) -> Format:
    """The format of that name. Raises UsageError."""
    for known in FORMATS:
        if name == known:
            return known
    raise UsageError(f"--export {name}: no such format (there are: {', '.join(FORMATS)})")


def export(network: nn.Module, example: Tensor, form: Format, path: Path) -> float:
    """Write the network for inputs like `example`, and return the largest difference of the logits that come back.

    Raises UsageError where a package is missing, RunError for an operation that the format does not know or for logits
    that differ; the file is then not written.
    """
    network.eval()
    with torch.inference_mode():
        expected = network(example)
    with tempfile.TemporaryDirectory() as folder:
        aside = Path(folder) / path.name
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporters' own, about versions of their parts
            found = _pt2(network, example, aside) if form == "pt2" else _onnx(network, example, aside)
        difference = float((found - expected).abs().max())
        if not difference <= _tolerance(network, example, expected):
            raise RunError(f"{path}: not written: the exported network's logits differ by {difference:.3g}")
        write_whole(path, aside.read_bytes())
    return difference


def _tolerance(network: nn.Module, example: Tensor, expected: Tensor) -> float:
    """How far logits may be apart: by rounding, or twice as far as rounding moves the network's own.

    A network that sorts or nominates may choose otherwise after another rounding, which no format can help. How far
    that goes is seen in float64 and on the example with the last bit of its values changed, `NUDGES` times.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        others = [copy.deepcopy(network).double()(example.double())]
        for _ in range(NUDGES):
            sign = torch.randint(0, 2, example.shape, generator=generator) * 2 - 1
            others.append(network(example * (1 + sign * torch.finfo(torch.float32).eps)))
    own = max(float((other - expected).abs().max()) for other in others)
    return max(TOLERANCE * max(1.0, float(expected.abs().max())), 2 * own)


def _pt2(network: nn.Module, example: Tensor, file: Path) -> Tensor:
    """Export, save, load again, run."""
    try:
        with torch.no_grad():
            torch.export.save(torch.export.export(network, (example,)), file)
    except Exception as error:  # whatever the exporter stumbles over, its first line names it
        raise RunError(f"torch.export cannot export this network: {_first_line(error)}") from error
    with torch.inference_mode():
        result: Tensor = torch.export.load(file).module()(example)
    return result


def _onnx(network: nn.Module, example: Tensor, file: Path) -> Tensor:
    """Export, check, run in onnxruntime."""
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  # torch's exporter needs it
    except ImportError as error:
        raise UsageError(f"ONNX needs the package {error.name}: pip install 'archspec-vision[onnx]'") from error
    try:
        with torch.no_grad():
            torch.onnx.export(
                network,
                (example,),
                file,
                dynamo=True,
                verbose=False,
                external_data=False,
                custom_translation_table={torch.ops.aten.sort.stable: _stable_sort},
            )
    except Exception as error:  # as above
        raise RunError(f"ONNX cannot express this network: {_first_line(error)}") from error
    onnx.checker.check_model(str(file))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {session.get_inputs()[0].name: example.numpy()})
    return torch.from_numpy(result)


def _stable_sort(self: Any, stable: bool = True, dim: int = -1, descending: bool = False) -> Any:
    """What torch's exporter lacks: ONNX's TopK keeps equal elements in their order, so that of all is a stable sort."""
    from onnxscript import opset18 as op

    length = op.Shape(self, start=dim, end=dim + 1 or None)
    return op.TopK(self, length, axis=dim, largest=int(descending), sorted=1)


def _first_line(error: BaseException) -> str:
    """The line of the innermost cause that says what was not possible."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
