"""Each operation against torchvision's, and the grouping against one picture at a time."""

from __future__ import annotations

import math

import pytest
import torch
from support.pictures import make_stream, random_pictures, whole_batch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as TF

from cifar_lab.data.randaugment import NUM_LEVELS, OPERATIONS, RandAugment, RandAugmentDraws, levels
from cifar_lab.recipe.augment import Augment

COUNT = 16


def torchvision_op(name: str, x: Tensor, level: float, sign: int) -> Tensor:
    """The operation as in torchvision.transforms.autoaugment, `level` in 0..1 of its maximum."""
    height, width = x.shape[-2:]
    s = 1 - 2 * sign
    nearest = InterpolationMode.NEAREST
    dx, dy = (int(s * 150 / 331 * side * level) for side in (width, height))
    shear = s * math.degrees(math.atan(0.3 * level))
    plain = {"angle": 0.0, "scale": 1.0, "interpolation": nearest}
    still = {"translate": [0, 0], "center": [0, 0], **plain}
    factor = 1 + s * 0.9 * level
    bits = 8 - round(4 * level)
    return {
        "ShearX": lambda: TF.affine(x, shear=[shear, 0.0], **still),
        "ShearY": lambda: TF.affine(x, shear=[0.0, shear], **still),
        "TranslateX": lambda: TF.affine(x, translate=[dx, 0], shear=[0.0, 0.0], **plain),
        "TranslateY": lambda: TF.affine(x, translate=[0, dy], shear=[0.0, 0.0], **plain),
        "Rotate": lambda: TF.rotate(x, s * 30 * level, interpolation=nearest),
        "Brightness": lambda: TF.adjust_brightness(x, factor),
        "Color": lambda: TF.adjust_saturation(x, factor),
        "Contrast": lambda: TF.adjust_contrast(x, factor),
        "Sharpness": lambda: TF.adjust_sharpness(x, factor),
        "Posterize": lambda: TF.posterize(x, bits),
        "Solarize": lambda: TF.solarize(x, 255 * (1 - level)),
        "AutoContrast": lambda: TF.autocontrast(x),
        "Equalize": lambda: TF.equalize(x),
        "Identity": lambda: x,
    }[name]()


def one_operation(x: Tensor, name: str, magnitude: float, sign: int, std: float = 0.0, level: int = 0) -> Tensor:
    """All pictures through our kernel for one operation, by draws made by hand."""
    op = OPERATIONS.index(name)
    recipe = Augment(randaugment_ops=1, randaugment_magnitude=magnitude, randaugment_std=std)
    augment = RandAugment(recipe, x.shape[2:], micro_batch=len(x), device=torch.device("cpu"))
    counts = [0] * 10
    place = torch.arange(len(x))
    counts[max(0, op - 4)] = len(x)
    variant = (2 * op + sign) * augment.num_levels + level
    draws = RandAugmentDraws((place,), (place,), (torch.full((len(x),), variant),), ([counts],))
    out = x.clone()
    augment(out, draws, 0)
    return out


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("size", [(32, 32), (20, 27)])
def test_operation_equals_torchvision(name: str, size: tuple[int, int]) -> None:
    x = random_pictures(COUNT, *size).images
    x[0] = 77  # one value only: autocontrast and equalize must leave it
    for magnitude in (0, 4, 9, 10):
        for sign in (0, 1):
            ours = one_operation(x, name, magnitude, sign)
            theirs = torchvision_op(name, x, magnitude / 10, sign)
            # Blends may round to the neighbouring level, everything else is equal.
            tolerance = 1 if name in ("Color", "Contrast", "Sharpness") else 0
            assert (ours.int() - theirs.int()).abs().max() <= tolerance, (magnitude, sign)
            assert (ours != theirs).float().mean() < 0.05
            if magnitude == 9 and name != "Identity":
                assert not torch.equal(ours, x)


def test_draws_are_uniform_and_grouped() -> None:
    augment = RandAugment(Augment(randaugment_ops=2), (8, 8), micro_batch=100, device=torch.device("cpu"))
    draws = augment.draw(torch.arange(14000), 0, 0)
    for grouped, back, variant, counts in zip(draws.grouped, draws.back, draws.variant, draws.counts, strict=True):
        grouped, back = grouped.view(140, 100), back.view(140, 100)
        assert torch.equal(grouped.gather(1, back), torch.arange(100).expand(140, 100))
        frequency = variant.bincount(minlength=28) / 14000
        assert frequency.min() > 0.8 / 28
        assert frequency.max() < 1.2 / 28
        assert all(sum(row) == 100 for row in counts)
    assert not torch.equal(draws.variant[0], draws.variant[1])


def test_levels_are_a_clipped_normal() -> None:
    assert levels(Augment(randaugment_magnitude=9)) == [0.9]
    magnitude = 10 * torch.tensor(levels(Augment(randaugment_magnitude=5, randaugment_std=0.5)), dtype=torch.float64)
    assert magnitude.mean() == pytest.approx(5, abs=1e-9)
    assert magnitude.std(correction=0) == pytest.approx(0.5, abs=1e-9)
    assert ((magnitude - 5).abs() < 0.5).double().mean() == pytest.approx(0.683, abs=1 / NUM_LEVELS)
    wide = torch.tensor(levels(Augment(randaugment_magnitude=9, randaugment_std=2)))
    assert wide.max() == 1 and (wide == 1).double().mean() == pytest.approx(0.309, abs=1 / NUM_LEVELS)
    assert torch.tensor(levels(Augment(randaugment_magnitude=1, randaugment_std=2))).min() == 0


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_level_is_torchvisions_at_that_magnitude(name: str) -> None:
    x = random_pictures(COUNT).images
    known = levels(Augment(randaugment_magnitude=6, randaugment_std=1.5))
    results = set()
    for level in (0, 9, NUM_LEVELS - 1):
        for sign in (0, 1):
            ours = one_operation(x, name, 6, sign, std=1.5, level=level)
            theirs = torchvision_op(name, x, known[level], sign)
            tolerance = 1 if name in ("Color", "Contrast", "Sharpness") else 0
            assert (ours.int() - theirs.int()).abs().max() <= tolerance, (level, sign)
            results.add(int(ours.long().sum()))
    assert len(results) > (1 if name in ("AutoContrast", "Equalize", "Identity") else 3) - 1


def test_operations_are_left_out_and_levels_are_drawn_for_each() -> None:
    settings = {"randaugment_ops": 2, "randaugment_prob": 0.5, "randaugment_std": 0.5}
    ids = torch.arange(20000)

    def drawn(**changes: float) -> tuple[Tensor, ...]:
        augment = RandAugment(Augment(**settings | changes), (8, 8), micro_batch=100, device=torch.device("cpu"))
        draws = augment.draw(ids, 0, 0)
        places = (torch.arange(20000) // 100 * 100 + back for back in draws.back)  # back to the order of the ids
        return tuple(variant[place] for variant, place in zip(draws.variant, places, strict=True))

    first, second = drawn()
    for variant in (first, second):
        op, level = variant // (2 * NUM_LEVELS), variant % NUM_LEVELS
        assert (op == OPERATIONS.index("Identity")).double().mean() == pytest.approx(0.5 + 0.5 / 14, abs=0.015)
        assert level.bincount(minlength=NUM_LEVELS).min() > 0.8 * 20000 / NUM_LEVELS
    assert not torch.equal(first % NUM_LEVELS, second % NUM_LEVELS)
    # Neither changes which operation and sign is drawn where one is done.
    done = first // (2 * NUM_LEVELS) != OPERATIONS.index("Identity")
    plain = drawn(randaugment_prob=1.0, randaugment_std=0.0)[0]
    assert torch.equal((first // NUM_LEVELS)[done], plain[done])


def test_stream_applies_the_operations_in_their_rounds() -> None:
    data = random_pictures(24)
    settings = {"global_batch": 24, "micro_batch": 8}
    plain, _, ids, _ = whole_batch(make_stream(data, **settings, mean=(0, 0, 0), std=(1, 1, 1)), 0)
    augment = {"randaugment_ops": 2, "randaugment_magnitude": 7, "randaugment_prob": 0.7, "randaugment_std": 1.0}
    stream = make_stream(data, augment, **settings, mean=(0, 0, 0), std=(1, 1, 1))
    images, _, ids2, _ = whole_batch(stream, 0)
    assert torch.equal(ids, ids2)
    single = RandAugment(stream._augment, (32, 32), micro_batch=1, device=torch.device("cpu"))
    for i in range(24):
        draws = single.draw(ids[i : i + 1], 0, 0)
        x = (plain[i : i + 1] * 255).round().to(torch.uint8)
        for variant in draws.variant:
            signed_op, level = divmod(int(variant), NUM_LEVELS)
            op, sign = divmod(signed_op, 2)
            x = one_operation(x, OPERATIONS[op], 7, sign, std=1.0, level=level)
        assert torch.equal((images[i] * 255).round().to(torch.uint8), x[0])
    assert not torch.equal(images, plain)
