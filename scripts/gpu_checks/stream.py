"""Stream: training pictures as the device makes them, against the CPU's."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from cifar_lab.data.images import load_images
from cifar_lab.data.preparation import Preparation
from cifar_lab.data.stream import Stream
from cifar_lab.recipe import parse_recipe
from cifar_lab.runtime.device import synchronize
from gpu_checks.check import Found, Place
from gpu_checks.runs import make_world, session, small, take_steps

# All pictures of these are bytes until they are normalised.
BYTES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "crop, flip": {"crop_padding": 4, "flip": True},
    "reflected, alternating": {"crop_padding": 4, "padding_mode": "reflect", "flip": "alternating"},
    "RandAugment": {"crop_padding": 4, "flip": True, "randaugment_ops": 3, "randaugment_std": 0.5},
    "noise, CutMix": {"crop_padding": 2, "erase_prob": 0.5, "erase_value": "random", "cutmix_alpha": 1.0},
}
BYTES["random resized crop, distortion"] = {
    "random_resized_crop": [0.08, 1.0], "flip": True, "vertical_flip": True, "rotation": 30.0, "brightness": 0.4,
    "contrast": 0.4, "saturation": 0.4, "hue": 0.1,
}  # fmt: skip
FLOATS: dict[str, dict[str, Any]] = {
    "mixup": {"flip": True, "mixup_alpha": 0.4},
    "everything": {
        "crop_padding": 4, "flip": True, "cutout": 8, "erase_prob": 0.3, "erase_value": "random", "mixup_alpha": 0.4,
        "cutmix_alpha": 1.0, "randaugment_ops": 2,
    },
}  # fmt: skip
BATCH, PART = 128, 32


def stream(place: Place, found: Found) -> None:
    """All augmentations, two sizes, both layouts; an epoch without a wait; speed."""
    device = torch.device(place.device)
    images = load_images("shapes", {"num_train": 512, "num_test": 10}, root=None, max_gib=1.0).train

    def made(augment: dict[str, Any], size: int, where: torch.device, batch: int, channels_last: bool) -> Stream:
        recipe = parse_recipe(small(data__augment=augment))
        plain = (0.0,) * 3, (1.0,) * 3
        return Stream(
            images,
            Preparation(size, "bicubic", *plain),
            recipe.data.augment,
            seed=1,
            global_batch=BATCH,
            micro_batch=batch,
            device=where,
            channels_last=channels_last,
        )

    wrong, largest = 0, 0.0
    for augment in [*BYTES.values(), *FLOATS.values()]:
        exact = augment in BYTES.values()
        for size in (32, 224) if not place.on_cpu or augment is FLOATS["everything"] else (32,):
            # Pictures do not depend on the micro-batch: the CPU's come in parts.
            expected = made(augment, size, torch.device("cpu"), PART, False)
            for channels_last in (False, True):
                measured = made(augment, size, device, BATCH, channels_last)
                for step in (0, 5):  # of two epochs
                    whole = measured.micro_batch(step, 0).images.cpu()
                    parts = [expected.micro_batch(step, m).images.clone() for m in range(BATCH // PART)]
                    largest = max(largest, _difference(whole, torch.cat(parts)))
                    if exact and size == 32:
                        wrong += int((_as_bytes(whole) != _as_bytes(torch.cat(parts))).sum())
    found.at_most("bytes that differ", wrong, 0)
    found.at_most("floats differ by", largest, 1e-5)
    _no_wait(place, found)
    _speed(place, found, made)


def _as_bytes(images: Tensor) -> Tensor:
    return (images * 255).round().to(torch.uint8)


def _difference(one: Tensor, other: Tensor) -> float:
    return (one - other).abs().max().item()


def _no_wait(place: Place, found: Found) -> None:
    """Steps inside an epoch, pictures and training, during which the host never waits for the device."""
    augment = FLOATS["everything"]
    mapping = small(data__augment=augment, train__grad_clip=1.0, train__ema_decay=0.9, log__every_steps=50)
    with session(mapping, place.folder / "run", make_world(place.device)) as made:
        take_steps(made, range(2))
        steps = range(2, made.schedule.steps_per_epoch)
        if place.device == "cuda":
            torch.cuda.set_sync_debug_mode("error")
            try:
                take_steps(made, steps)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        else:
            waits = _waits_seen_by_dispatch(made, steps)
            found.at_most("waits", len(waits), 0)
            if waits:
                found.problems.append(f"waits for the device inside an epoch: {', '.join(sorted(set(waits)))}")
        found.note("steps without a wait", len(steps))


def _waits_seen_by_dispatch(made: Any, steps: range) -> list[str]:
    from tests.support.host_syncs import HostSyncs

    if made.world.device.type == "cpu":
        made.engine.guard.reads = False  # as on an accelerator, where reading a scalar would wait
    with HostSyncs() as syncs:
        take_steps(made, steps)
    return syncs.found


def _speed(place: Place, found: Found, made: Any) -> None:
    device = torch.device(place.device)
    for size in (32, 224):
        measured = made(BYTES["crop, flip"], size, device, BATCH, True)
        steps = 20 if place.on_cpu else 200
        for begin, end in ((0, 2), (2, 2 + steps)):
            start = time.perf_counter()
            for step in range(begin, end):
                measured.micro_batch(step % measured.steps_per_epoch, 0)
            synchronize(device)
        found.note(f"images/s at {size} px", BATCH * steps / (time.perf_counter() - start))
