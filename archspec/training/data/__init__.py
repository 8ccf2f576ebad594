"""Data sets, by name or folder, dealt out to the processes of a run in an order that can be taken up anywhere.

digits                 scikit-learn's scanned digits, bundled
FOLDER                 train/CLASS/... and val/CLASS/... (or test/)
torch/NAME             torchvision's: cifar10, cifar100, mnist, imagenet, ...
hfds/OWNER/NAME        tables of the hub (needs the package datasets)
wds/FOLDER             WebDataset shards in a folder

It is imported late, by the commands that train or evaluate: it loads torch.
"""

from __future__ import annotations

from pathlib import Path

from archspec.errors import UsageError, nearest, shorten
from archspec.training.data.base import Batch, Data, Normalisation
from archspec.training.data.broken import Broken
from archspec.training.data.images import Parts, open_folder
from archspec.training.data.in_memory import TensorData, digit_images, digits
from archspec.training.data.stream import Shares
from archspec.training.recipe import Augment, Recipe

__all__ = ["MAX_BROKEN", "Batch", "Broken", "Data", "Normalisation", "default_root", "open_data"]

MAX_BROKEN = 100  # images that may be unreadable before a run gives up
FORMS = "digits, a folder with train/ and val/, torch/cifar10, hfds/OWNER/NAME, wds/FOLDER"
STREAMS = ("tfds", "hfids")
TORCH_ROOT = Path("data")


def open_data(
    name_or_path: str | Path,
    *,
    channels: int,
    size: tuple[int, int],
    recipe: Recipe | None = None,
    batch: int,
    seed: int = 0,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    root: Path | None = None,
    download: bool = False,
    max_broken: int = MAX_BROKEN,
    train: bool = True,
) -> Data:
    """A data set for networks that take [B, channels, *size], as process `rank` of `world` sees it.

    recipe: what it says under `augment` is done to the images; None: what evaluation does without one.
    batch: images of a step over all processes; no more than there are to train on. seed: of order and augmentation.
    workers: processes that decode and augment; the images do not depend on their number.
    root: where torchvision's and the hub's data sets stand, `data` unless said. download: let them be fetched.
    max_broken: images that may be unreadable; one more raises DataError when it is met.
    train: False opens the part to evaluate on alone.
    Raises UsageError for data that cannot be had, or do not fit the channels, the batch or the recipe.
    """
    augment = recipe.augment if recipe else None
    name = str(name_or_path)

    def shares(images: int) -> Shares:
        whole = images // world * world
        taken = min(batch, whole) if train else batch
        return Shares(
            images=images, batch=taken, seed=seed, rank=rank, world=world, repeats=augment.repeats if augment else 1
        )

    if name == "digits" and (augment is None or TensorData.suffices(augment)):
        split = digits(channels, size, _interpolation(augment))
        return TensorData(split, shares(len(split.train_labels)), augment)

    from archspec.training.data import views
    from archspec.training.data.loading import ImageData

    mode = views.mode_of(channels, name)
    parts, own = digit_images(channels) if name == "digits" else (_open(name, root, train, download), None)
    said = augment or Augment()
    constants = views.normalisation(said, channels, own)
    return ImageData(
        parts,
        shares(len(parts.train or ())),
        (views.train_view(said, channels, size, constants), views.test_view(said, channels, size, constants)),
        mode=mode,
        shape=(channels, *size),
        constants=constants,
        workers=workers,
        broken=Broken(max_broken),
    )


def _interpolation(augment: Augment | None) -> str:
    return "bicubic" if augment and augment.interpolation == "bicubic" else "bilinear"


def default_root(name: str) -> Path | None:
    """Where a data set with a name stands unless said, from the working folder; None where its library knows."""
    return TORCH_ROOT if _prefix(name) == "torch" else None


def _prefix(name: str) -> str:
    return name.partition("/")[0].lower()


def _open(name: str, root: Path | None, train: bool, download: bool) -> Parts:
    from archspec.training.data.library import open_hub, open_torch
    from archspec.training.data.shards import open_shards

    prefix = _prefix(name)
    if prefix == "torch":
        return open_torch(name, root or TORCH_ROOT, train=train, download=download)
    if prefix == "hfds":
        return open_hub(name, root, train=train, download=download)
    if prefix == "wds":
        folder = name[len("wds/") :]
        return open_shards(_folder(folder, root), train=train)
    if prefix in STREAMS:
        advice = "hfds/ reads the same tables from a disk, wds/ shards"
        raise UsageError(f"{name}: a stream cannot be taken up in the middle of an epoch ({advice})")
    return open_folder(_folder(name, None), train=train)


def _folder(name: str, root: Path | None) -> Path:
    folder = (root or Path()) / Path(name).expanduser()
    if not folder.is_dir():
        remedy = nearest(name, ["digits"]) or f"known: {FORMS}"
        raise UsageError(f"{shorten(name)!r} is neither a folder nor a data set ({remedy})")
    return folder
