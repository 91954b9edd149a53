"""Training pictures per second of our Stream beside the loaders of torchvision and timm, and the memory's own limits.

    python benchmarks/input_pipeline.py [--images 20000] [--peers] [--repeats 9]

The pictures are random bytes: the time does not depend on what they show. Prints JSON on its last line.
"""

# ruff: noqa: E402
from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

from cifar_lab.runtime import host

host.settle()  # as `cifar-lab train` does, before torch is loaded

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from cifar_lab.data.images import ImageSet
from cifar_lab.data.preparation import Preparation
from cifar_lab.data.stream import Stream
from cifar_lab.recipe.augment import Augment

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CROP_FLIP = {"crop_padding": 4, "flip": True}

BOX = {"random_resized_crop": (0.08, 1.0), "flip": True}
COLORS = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
OTHERS = {
    "vertical_flip": {**CROP_FLIP, "vertical_flip": True},
    "rotation": {**CROP_FLIP, "rotation": 15.0},
    **{name: {**CROP_FLIP, name: amount} for name, amount in COLORS.items()},
    "colors": {**CROP_FLIP, **COLORS},
    "box": BOX,
    "box_colors": {**BOX, **COLORS},
}


def rates_of(runs: dict[str, Callable[[], int]], repeats: int) -> dict[str, float]:
    """Largest pictures per second of each, interleaved, after one to warm up; a run returns how many it made."""
    best = dict.fromkeys(runs, 0.0)
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            count = run()
            if repeat:
                best[name] = max(best[name], count / (time.perf_counter() - start))
    return best


def ours(data: ImageSet, size: int, batch: int, num_batches: int, channels_last: bool = False, **augment: object):
    """A run of `num_batches` micro-batches."""
    stream = Stream(
        data,
        Preparation(size, "bicubic", MEAN, STD),
        Augment(**augment),
        seed=0,
        global_batch=batch,
        micro_batch=batch,
        device=torch.device("cpu"),
        channels_last=channels_last,
    )
    num_batches = min(num_batches, stream.steps_per_epoch)

    def run() -> int:
        for step in range(num_batches):
            stream.micro_batch(step, 0)
        return num_batches * batch

    return run


def bound(data: ImageSet, batch: int, num_batches: int):
    """One gather and normalise, into kept buffers."""
    order = torch.randperm(len(data))
    num_batches = min(num_batches, len(data) // batch)
    pixels, out = torch.empty((batch, 3, 32, 32), dtype=torch.uint8), torch.empty((batch, 3, 32, 32))
    scale = (1 / (255 * torch.tensor(STD))).view(1, 3, 1, 1)
    bias = -(torch.tensor(MEAN) / torch.tensor(STD)).view(1, 3, 1, 1)

    def run() -> int:
        for i in range(num_batches):
            torch.index_select(data.images, 0, order[i * batch : (i + 1) * batch], out=pixels)
            out.copy_(pixels).mul_(scale).add_(bias)
        return num_batches * batch

    return run


class PictureData(torch.utils.data.Dataset):
    """What torchvision's CIFAR10 does with its array: `Image.fromarray`, then the transform."""

    def __init__(self, data: ImageSet, transform: Callable[[Image.Image], torch.Tensor]) -> None:
        self.data = np.ascontiguousarray(data.images.permute(0, 2, 3, 1).numpy())
        self.targets, self.transform = data.labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.data[index])), self.targets[index]


def steady_rate(loader, batch: int) -> float:
    """Pictures per second of an epoch of `loader`, the start of its workers not counted."""
    count, start = 0, 0.0
    for i, _ in enumerate(loader):
        if i == 4:
            start = time.perf_counter()
        count += batch if i > 4 else 0
    return count / (time.perf_counter() - start)


def torchvision_rate(data: ImageSet, batch: int, size: int, strong: bool = False, boxed: bool = False) -> float:
    """Steady rate of the usual PIL transforms in a DataLoader with two workers."""
    from torchvision import transforms as T

    steps: list[object] = [T.RandomCrop(32, padding=4), T.RandomHorizontalFlip()]
    if boxed:
        bicubic = T.InterpolationMode.BICUBIC
        steps = [T.RandomResizedCrop(32, interpolation=bicubic), T.RandomHorizontalFlip(), T.ColorJitter(**COLORS)]
    if strong:
        steps.append(T.RandAugment(2, 9))
    if size != 32:
        steps.append(T.Resize(size, interpolation=T.InterpolationMode.BICUBIC))
    steps += [T.ToTensor(), T.Normalize(MEAN, STD)]
    if strong:
        steps.append(T.RandomErasing(0.25))
    loader = torch.utils.data.DataLoader(
        PictureData(data, T.Compose(steps)), batch_size=batch, shuffle=True, num_workers=2, drop_last=True
    )
    return steady_rate(loader, batch)


def timm_rate(data: ImageSet, batch: int, size: int, strong: bool = False) -> float:
    """Steady rate of timm's `create_loader` with two workers: its random resized crop, flip, and `rand-m9-n2`."""
    from timm.data import create_loader

    loader = create_loader(
        PictureData(data, None),  # timm sets its own transform
        input_size=(3, size, size),
        batch_size=batch,
        is_training=True,
        num_workers=2,
        mean=MEAN,
        std=STD,
        interpolation="bicubic",
        color_jitter=None,
        auto_augment="rand-m9-n2" if strong else None,
        re_prob=0.25 if strong else 0.0,
        device=torch.device("cpu"),
        persistent_workers=False,
    )
    return steady_rate(loader, batch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20000)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument(
        "--peers", action="store_true", help="run the loaders of torchvision and timm too (half a minute)"
    )
    args = parser.parse_args()
    torch.manual_seed(0)
    data = ImageSet(
        torch.randint(0, 256, (args.images, 3, 32, 32), dtype=torch.uint8),
        torch.randint(0, 10, (args.images,)),
        torch.arange(args.images),
        tuple("abcdefghij"),
        "random",
    )
    n, batch = args.images // args.batch, args.batch
    strong = {**CROP_FLIP, "randaugment_ops": 2, "erase_prob": 0.25}
    large, small = torch.empty(128, 3, 224, 224), torch.randn(128, 3, 32, 32)
    runs = {
        "bound_32": bound(data, batch, n),
        "ours_32": ours(data, 32, batch, n, **CROP_FLIP),
        "ours_32_channels_last": ours(data, 32, batch, n, channels_last=True, **CROP_FLIP),
        "ours_32_mixup": ours(data, 32, batch, n, mixup_alpha=0.2, **CROP_FLIP),
        "ours_32_cutmix": ours(data, 32, batch, n, cutmix_alpha=1.0, **CROP_FLIP),
        "ours_32_cutout": ours(data, 32, batch, n, cutout=12, **CROP_FLIP),
        "ours_32_randaugment_erasing": ours(data, 32, batch, n, **strong),
        **{f"ours_32_{name}": ours(data, 32, batch, n, **augment) for name, augment in OTHERS.items()},
        "ours_224": ours(data, 224, 128, 8, **CROP_FLIP),
        "ours_224_channels_last": ours(data, 224, 128, 8, channels_last=True, **CROP_FLIP),
        "ours_224_mixup": ours(data, 224, 128, 8, mixup_alpha=0.2, **CROP_FLIP),
        "ours_224_cutmix": ours(data, 224, 128, 8, cutmix_alpha=1.0, **CROP_FLIP),
        "ours_32_randaugment_erasing_mixup": ours(data, 32, batch, n, mixup_alpha=0.2, **strong),
        "fill_224": lambda: len(large.fill_(1.0)),
        "interpolate_224": lambda: len(F.interpolate(small, size=(224, 224), mode="bicubic", antialias=True)),
    }
    rates = rates_of(runs, args.repeats)
    ratios = {
        "32 / bound": rates["ours_32"] / rates["bound_32"],
        "mixup / plain": rates["ours_32_mixup"] / rates["ours_32"],
        "cutmix / plain": rates["ours_32_cutmix"] / rates["ours_32"],
        "224 mixup / plain": rates["ours_224_mixup"] / rates["ours_224"],
        "224 cutmix / plain": rates["ours_224_cutmix"] / rates["ours_224"],
        "strong 32 mixup / strong": rates["ours_32_randaugment_erasing_mixup"] / rates["ours_32_randaugment_erasing"],
        "224 / fill": rates["ours_224"] / rates["fill_224"],
        "224 / interpolate": rates["ours_224"] / rates["interpolate_224"],
    }
    ratios |= {f"{name} / plain": rates[f"ours_32_{name}"] / rates["ours_32"] for name in OTHERS}
    if args.peers:
        few = data.subset(data.ids[:4096])
        for peer, rate in (("torchvision", torchvision_rate), ("timm", timm_rate)):
            rates[f"{peer}_32"] = rate(data, batch, 32)
            rates[f"{peer}_32_randaugment_erasing"] = rate(data, batch, 32, strong=True)
            rates[f"{peer}_224"] = rate(few, 128, 224)
            for case in ("32", "32_randaugment_erasing", "224"):
                ratios[f"{case} / {peer}"] = rates[f"ours_{case}"] / rates[f"{peer}_{case}"]
        rates["torchvision_32_box_colors"] = torchvision_rate(data, batch, 32, boxed=True)
        ratios["32_box_colors / torchvision"] = rates["ours_32_box_colors"] / rates["torchvision_32_box_colors"]
    for name, value in rates.items():
        print(f"{name:40s} {value:12,.0f} pictures/s")
    for name, value in ratios.items():
        print(f"{name:40s} {value:12.2f}")
    print(json.dumps({"threads": torch.get_num_threads(), "rates": rates, "ratios": ratios}))


if __name__ == "__main__":
    main()
