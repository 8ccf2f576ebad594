"""Evaluation: counts against scikit-learn, disturbances against hand derivations, and the command."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
import torch.nn.functional as F
from rich.console import Console
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, top_k_accuracy_score
from torch import Tensor, nn
from typer.testing import CliRunner

from archspec import api
from archspec.checkpoints import save_weights
from archspec.cli.app import app
from archspec.errors import ArchspecError, EvaluationError, UsageError
from archspec.evaluation import Condition, Tally, conditions, evaluate, withstand
from archspec.evaluation.perturbations import add_noise, blur, fgsm, occlude_centre
from archspec.evaluation.robustness import DRAWS, STUDENT
from archspec.evaluation.subject import find_subject
from archspec.training.data import Normalisation, open_data

CPU = torch.device("cpu")
PLAIN = Normalisation(mean=(0.0,), std=(1.0,))


def answers(images: int = 60, classes: int = 7) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (images,), generator=generator)
    logits = torch.randn(images, classes, generator=generator)
    return logits + 1.5 * F.one_hot(labels, classes), labels


def tallied(logits: Tensor, labels: Tensor, batch: int = 13) -> Tally:
    tally = Tally(logits.shape[1])
    for part in zip(logits.split(batch), labels.split(batch), strict=True):
        tally.add(*part)
    return tally


class TestScores:
    def test_against_scikit_learn(self):
        logits, labels = answers()
        scores = tallied(logits, labels).scores()
        predictions, every = logits.argmax(1), list(range(7))
        assert scores.images == 60
        assert scores.top1 == accuracy_score(labels, predictions)
        assert 0.3 < scores.top1 < scores.top5 == top_k_accuracy_score(labels, logits, k=5, labels=every) < 1
        assert scores.confusion.tolist() == confusion_matrix(labels, predictions, labels=every).tolist()
        assert scores.loss == pytest.approx(log_loss(labels, logits.double().softmax(1), labels=every), rel=1e-6)

    def test_each_class_against_a_plain_loop(self):
        logits, labels = answers()
        labels[labels == 3] = 4
        found = tallied(logits, labels).scores().per_class
        for label in range(7):
            own = [int(row.argmax()) == label for row, true in zip(logits, labels, strict=True) if true == label]
            assert found[label] == (sum(own) / len(own) if own else None)
        assert found[3] is None

    def test_of_equal_logits_the_first_counts(self):
        """A network that always answers the same must not be right about everything."""
        labels = torch.arange(8)
        scores = tallied(torch.zeros(8, 8), labels).scores()
        assert (scores.top1, scores.top5) == (1 / 8, 5 / 8)
        assert scores.confusion[:, 0].tolist() == [1] * 8

    def test_no_top5_of_five_classes(self):
        assert tallied(*answers(classes=5)).scores().top5 is None

    def test_answers_that_cannot_be_counted(self):
        logits, labels = answers()
        logits[7, 2] = math.nan
        with pytest.raises(EvaluationError, match="not finite"):
            tallied(logits, labels)
        with pytest.raises(EvaluationError, match="no images that can be read"):
            Tally(3).scores()

    def test_one_pass_leaves_every_module_in_its_mode(self):
        logits, labels = answers()
        network = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm1d(7, affine=False, momentum=1.0))
        network[1].eval()
        batches = list(zip(logits.split(13), labels.split(13), strict=True))
        found = evaluate(network, batches, classes=7, device=CPU)
        assert found.scores.top1 == accuracy_score(labels, logits.argmax(1))  # nothing was dropped or renormalised
        assert (network.training, network[0].training, network[1].training) == (True, True, False)
        assert (found.device, found.threads) == ("cpu", torch.get_num_threads())
        assert found.images_per_second == pytest.approx(60 / found.seconds)


class TestOcclusion:
    @pytest.mark.parametrize(("size", "hidden"), [((224, 224), 112 * 112), ((8, 6), 4 * 3), ((7, 5), 3 * 2)])
    def test_the_middle_half_of_each_side_is_zero(self, size, hidden):
        images = torch.ones(2, 3, *size)
        occluded = occlude_centre(images)
        assert (occluded == 0).sum().item() == 2 * 3 * hidden
        assert images.all()

    def test_it_is_the_middle(self):
        rows = occlude_centre(torch.ones(1, 1, 8, 8))[0, 0].tolist()
        assert rows == [[1.0] * 8] * 2 + [[1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0]] * 4 + [[1.0] * 8] * 2


class TestNoise:
    def test_its_deviation_on_the_pixels_scale(self):
        constants = Normalisation(mean=(0.5, 0.4), std=(0.25, 0.5))
        images = torch.zeros(40, 2, 32, 32)  # pixels of 0.5 and 0.4: nothing is clipped
        noisy = add_noise(images, 10 / 255, constants, torch.Generator().manual_seed(0))
        pixels = noisy * torch.tensor([0.25, 0.5])[:, None, None]
        assert torch.allclose(pixels.std((0, 2, 3)), torch.tensor(10 / 255), rtol=0.02)
        assert pixels.mean().abs() < 1e-3

    def test_pixels_stay_between_black_and_white(self):
        constants = Normalisation(mean=(0.5,), std=(0.25,))
        noisy = add_noise(torch.full((4, 1, 8, 8), 2.0), 0.5, constants, torch.Generator().manual_seed(0))
        assert noisy.max() == 2  # white: (1 - 0.5) / 0.25
        assert noisy.min() >= -2

    def test_seeds_repeat(self):
        images, place = torch.zeros(2, 1, 4, 4), torch.device("cpu")
        for first, second in zip(conditions(PLAIN, place), conditions(PLAIN, place), strict=True):
            if first.name.startswith("noise"):
                draws = [draw(nn.Identity(), images, None) for draw in first.draws]
                again = [draw(nn.Identity(), images, None) for draw in second.draws]
                assert all(torch.equal(one, two) for one, two in zip(draws, again, strict=True))
                assert not torch.equal(draws[0], draws[1])


class TestBlur:
    @pytest.mark.parametrize("sigma", [1.0, 2.0])
    def test_against_scipy(self, sigma):
        images = torch.rand(2, 3, 9, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        expected = scipy.ndimage.gaussian_filter(images.numpy(), sigma, axes=(2, 3), mode="nearest", truncate=4)
        assert np.allclose(blur(images, sigma), expected, atol=1e-12)

    def test_against_a_plain_convolution(self):
        """Inside, where no border is near: the weights are a Gaussian's, and sum to 1."""
        image = torch.zeros(1, 1, 17, 17, dtype=torch.float64)
        image[0, 0, 8, 8] = 1
        weights = [[math.exp(-(x * x + y * y) / 2) for x in range(-4, 5)] for y in range(-4, 5)]
        total = sum(map(sum, weights))
        found = blur(image, 1.0)[0, 0, 4:13, 4:13]
        assert np.allclose(found, np.array(weights) / total, atol=1e-12)


class TestFgsm:
    def test_against_a_linear_network(self):
        """Logits W x: the cross entropy's slope in x is W^T (softmax(W x) - onehot), by hand."""
        generator = torch.Generator().manual_seed(0)
        weights = torch.randn(3, 4, generator=generator)
        images = torch.rand(5, 1, 2, 2, generator=generator) * 0.4 + 0.3
        labels = torch.tensor([0, 1, 2, 0, 1])
        attacked = fgsm(lambda x: x.flatten(1) @ weights.T, images, labels, 0.1, PLAIN)
        for image, label, result in zip(images, labels, attacked, strict=True):
            answer = weights @ image.flatten()
            error = answer.softmax(0)
            error[label] -= 1
            expected = image.flatten() + 0.1 * torch.sign(weights.T @ error)
            assert torch.allclose(result.flatten(), expected, atol=1e-6)

    def test_two_classes_by_hand(self):
        """With logits (x, -x) and class 0 the slope is negative everywhere: each pixel falls by the strength."""
        constants = Normalisation(mean=(0.5,), std=(0.25,))
        images = torch.tensor([[[[0.0, 1.0, -1.98]]]])  # pixels 0.5, 0.75 and 0.005
        attacked = fgsm(
            lambda x: torch.stack([x.sum((1, 2, 3)), -x.sum((1, 2, 3))], 1), images, torch.tensor([0]), 0.01, constants
        )
        assert attacked.flatten().tolist() == pytest.approx([-0.04, 0.96, -2.0])  # the last is black

    def test_nothing_is_left_behind(self):
        network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        with torch.inference_mode(False):
            fgsm(network, torch.rand(1, 1, 2, 2), torch.tensor([0]), 0.1, PLAIN)
        assert all(weight.grad is None for weight in network.parameters())


class TestRobustness:
    def test_the_papers_conditions(self):
        """Tables 8 and 9: occlusion, the attack, noise of 5 and 10 of 255 drawn five times, blur of 1 and 2 pixels."""
        found = {condition.name: len(condition.draws) for condition in conditions(PLAIN, CPU)}
        once = dict.fromkeys(("occlusion", "fgsm 1/255", "fgsm 8/255", "blur 1", "blur 2"), 1)
        assert found == {**once, "noise 5/255": 5, "noise 10/255": 5}

    def test_students_quantile(self):
        assert pytest.approx(scipy.stats.t.ppf(0.975, DRAWS - 1), abs=5e-4) == STUDENT

    def test_shares_and_intervals_by_hand(self):
        """A network that answers the first pixel's class; the draws add 0, 0 and 1 to it."""
        images, labels = torch.tensor([0.0, 1.0, 1.0, 0.0]).view(4, 1, 1, 1), torch.tensor([0, 1, 1, 1])

        def network(x: Tensor) -> Tensor:
            return F.one_hot(x.flatten().long(), 3).float()

        draws = tuple(lambda _, x, __, more=more: x + more for more in (0, 0, 1))
        (found,) = withstand(
            network,
            iter([(images[:3], labels[:3]), (images[3:], labels[3:])]),
            [Condition(name="c", draws=draws)],
            classes=3,
            device=CPU,
        )
        assert found.draws == (0.75, 0.75, 0.25)  # one more: only the last image, a 0 that shows a 1, comes right
        assert found.top1 == pytest.approx(1.75 / 3)
        assert found.interval == pytest.approx(STUDENT * np.std(found.draws, ddof=1) / 3**0.5)


@pytest.mark.gpu
def test_a_gpu_finds_the_same():
    place = torch.device("cuda")
    network = api.build(api.make_plan("vit_micro"), seed=0)
    data = open_data("digits", channels=network.plan.source.width, size=network.plan.source.grid, batch=120)
    on_cpu = evaluate(network, data.test_batches(), classes=10, device=CPU)
    on_gpu = evaluate(network.to(place), data.test_batches(), classes=10, device=place)
    assert on_gpu.device == torch.cuda.get_device_name()
    assert on_gpu.scores.loss == pytest.approx(on_cpu.scores.loss, rel=1e-3)
    disturbed = withstand(network, data.test_batches(), conditions(data.normalisation, place), classes=10, device=place)
    assert all(0 <= each.top1 <= 1 for each in disturbed)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("weights") / "w.safetensors"
    save_weights(api.build(api.make_plan("vit_micro"), seed=3), file)
    return file


def run(*arguments: object) -> str:
    """What the command prints; its errors are raised."""
    result = CliRunner().invoke(app, ["eval", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


class TestCommand:
    def test_json_against_a_plain_loop(self, weights):
        found = json.loads(
            run(weights, "--spec", "vit_micro", "--data", "digits", "--json", "--confusion", "--per-class")
        )
        network = api.build(api.make_plan("vit_micro"), seed=3)
        plan = network.plan
        data = open_data("digits", channels=plan.source.width, size=plan.source.grid, batch=360)
        ((images, labels),) = data.test_batches()
        with torch.inference_mode():
            logits = network(images)
        assert found["images"] == 360
        assert found["top1"] == pytest.approx((logits.argmax(1) == labels).float().mean().item())
        assert found["loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-4)
        assert found["confusion"] == confusion_matrix(labels, logits.argmax(1), labels=range(10)).tolist()
        assert [row["images"] for row in found["per_class"]] == labels.bincount().tolist()
        assert found["throughput"]["device"]
        assert str(weights.parent) not in json.dumps(found)

    @pytest.mark.slow
    def test_robustness(self, weights):
        found = json.loads(run(weights, "--spec", "vit_micro", "--data", "digits", "--json", "--robustness"))[
            "robustness"
        ]
        assert found["fgsm 8/255"]["top1"] <= found["fgsm 1/255"]["top1"]
        assert len(found["noise 10/255"]["draws"]) == 5
        assert "± " in run(weights, "--spec", "vit_micro", "--data", "digits", "--robustness")

    def test_for_people(self, weights):
        text = run(weights, "--spec", "vit_micro", "--data", "digits", "--confusion", "--per-class")
        for part in ("top-1", "top-5", "loss", "images/s on", "360 images", "each class", "confusion", "w.safetensors"):
            assert part in text

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (["{w}", "--data", "digits"], "which network they are of .try --spec"),
            (["{w}", "--spec", "vit_micro"], "do not say what to evaluate them on"),
            (["{w}", "--spec", "vit_micro", "--data", "digits", "--which", "best"], "one file"),
            (["{w}", "--spec", "vit_micro", "--set", "classes=7", "--data", "digits"], "7 classes, but digits has 10"),
            (["{w}", "--spec", "nommer_micro", "--data", "digits"], "does not fit"),
            (["nowhere", "--data", "digits"], "neither the folder of a run nor a file of weights"),
            (["{f}", "--data", "digits"], "holds no run"),
        ],
    )
    def test_what_does_not_go_together(self, weights, arguments, expected):
        filled = [part.format(w=weights, f=weights.parent) for part in arguments]
        with pytest.raises(UsageError, match=expected) as caught:
            run(*filled)
        assert isinstance(caught.value, ArchspecError)
        assert caught.value.exit_code == 2


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch, as `archspec train` leaves it."""
    from archspec.training.recipe import load_recipe
    from archspec.training.runs import run as train

    folder = tmp_path_factory.mktemp("runs") / "run"
    recipe = load_recipe("digits", ["epochs=1", "ema={decay: 0.9}"])
    train(api.make_plan("vit_micro"), recipe, "digits", folder, device="cpu", console=Console(file=io.StringIO()))
    return folder


class TestRunFolder:
    @pytest.mark.slow
    def test_each_of_its_weights(self, trained):
        metrics = json.loads((trained / "metrics.jsonl").read_text().splitlines()[-1])
        for which, key in (("last", "accuracy"), ("ema", "ema_accuracy")):
            found = json.loads(run(trained, "--which", which, "--json", "--device", "cpu"))
            assert found["top1"] == pytest.approx(metrics[key], abs=1e-6)
        assert json.loads(run(trained, "--json"))["weights"] == "last_ema.safetensors"
        assert "the moving average after the last epoch" in run(trained)

    @pytest.mark.slow
    def test_weights_that_are_not_there(self, trained, tmp_path):
        folder = tmp_path / "copy"
        folder.mkdir()
        for name in ("run.json", "spec.yaml", "recipe.yaml", "last.safetensors"):
            (folder / name).write_bytes((trained / name).read_bytes())
        assert find_subject(folder).weights.name == "last.safetensors"
        with pytest.raises(UsageError, match=r"no weights last_ema.safetensors \(there are: last\)"):
            find_subject(folder, which="ema")
        with pytest.raises(UsageError, match="has its own spec and recipe"):
            find_subject(folder, spec="vit_micro")

    @pytest.mark.slow
    @pytest.mark.parametrize("form", ["{}", "wds/{}"])
    def test_data_beside_the_run_are_found_from_anywhere(self, trained, tmp_path, form):
        folder = tmp_path / "runs" / "copy"
        folder.mkdir(parents=True)
        for name in ("spec.yaml", "recipe.yaml", "last.safetensors"):
            (folder / name).write_bytes((trained / name).read_bytes())
        said = json.loads((trained / "run.json").read_text())
        (folder / "run.json").write_text(json.dumps(said | {"data_from": form.format("../../images")}))
        found = Path(find_subject(folder).data.removeprefix("wds/"))
        assert found.resolve() == tmp_path / "images"
