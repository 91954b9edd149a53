"""Each operation against torchvision's, and the grouping against one picture at a time."""

from __future__ import annotations

import math

import pytest
import torch
from support.pictures import make_stream, random_pictures, whole_batch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as TF

from cifar_lab.data.randaugment import OPERATIONS, RandAugment, RandAugmentDraws
from cifar_lab.recipe.schema import Augment

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


def one_operation(x: Tensor, name: str, magnitude: float, sign: int) -> Tensor:
    """All pictures through our kernel for one operation, by draws made by hand."""
    op = OPERATIONS.index(name)
    recipe = Augment(randaugment_ops=1, randaugment_magnitude=magnitude)
    augment = RandAugment(recipe, x.shape[2:], micro_batch=len(x), device=torch.device("cpu"))
    counts = [0] * 10
    place = torch.arange(len(x))
    counts[max(0, op - 4)] = len(x)
    draws = RandAugmentDraws((place,), (place,), (torch.full((len(x),), 2 * op + sign),), ([counts],))
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
    for grouped, back, signed_op, counts in zip(draws.grouped, draws.back, draws.signed_op, draws.counts, strict=True):
        grouped, back = grouped.view(140, 100), back.view(140, 100)
        assert torch.equal(grouped.gather(1, back), torch.arange(100).expand(140, 100))
        frequency = signed_op.bincount(minlength=28) / 14000
        assert frequency.min() > 0.8 / 28
        assert frequency.max() < 1.2 / 28
        assert all(sum(row) == 100 for row in counts)
    assert not torch.equal(draws.signed_op[0], draws.signed_op[1])


def test_stream_applies_the_operations_in_their_rounds() -> None:
    data = random_pictures(24)
    settings = {"global_batch": 24, "micro_batch": 8}
    plain, _, ids, _ = whole_batch(make_stream(data, **settings, mean=(0, 0, 0), std=(1, 1, 1)), 0)
    stream = make_stream(
        data, {"randaugment_ops": 2, "randaugment_magnitude": 7}, **settings, mean=(0, 0, 0), std=(1, 1, 1)
    )
    images, _, ids2, _ = whole_batch(stream, 0)
    assert torch.equal(ids, ids2)
    single = RandAugment(stream._augment, (32, 32), micro_batch=1, device=torch.device("cpu"))
    for i in range(24):
        draws = single.draw(ids[i : i + 1], 0, 0)
        x = (plain[i : i + 1] * 255).round().to(torch.uint8)
        for signed_op in draws.signed_op:
            op, sign = divmod(int(signed_op), 2)
            x = one_operation(x, OPERATIONS[op], 7, sign)
        assert torch.equal((images[i] * 255).round().to(torch.uint8), x[0])
    assert not torch.equal(images, plain)
