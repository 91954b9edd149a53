"""Random resized crops of a chunk of pictures, on the device: the same bytes on any, in chunks of any size.

Pixels are whole numbers up to 255 and weights multiples of 2**-15, so all partial sums are multiples of 2**-15 below
2**9: float32 holds them exactly, whatever the order of adding. As in torch's kernel for bytes, what the first pass
makes is rounded to bytes.
"""

import torch
from torch import Tensor

from cifar_lab.data.augment import draw_flips
from cifar_lab.data.rectangles import draw_crops
from cifar_lab.data.resize import Interpolation
from cifar_lab.models.tf32 import products
from cifar_lab.recipe.augment import Augment

_UNIT = 2.0**-15


Draws = tuple[Tensor, Tensor, Tensor]  # of each position: picture int64 (N,), box int64 (N, 4), mirrored int64 (N,)


class ResizedCrop:
    """A box of each picture, resized to `size` x `size` with antialias, some of them mirrored."""

    def __init__(self, images: Tensor, augment: Augment, size: int, interpolation: Interpolation) -> None:
        self._images, self._augment, self._interpolation = images, augment, interpolation
        self.pitch = size  # of the result: from a row to the next

    def draw(self, rows: Tensor, ids: Tensor, seed: int, epoch: int) -> Draws:
        """Draws for the samples `ids` (N,) of an epoch, whose pictures lie in `rows`, on the host."""
        height, width = self._images.shape[-2:]
        boxes = draw_crops(self._augment, (height, width), ids, seed, epoch)
        return rows, boxes, draw_flips(self._augment.flip, ids, seed, epoch)

    def __call__(self, draws: Draws, start: int, stop: int) -> Tensor:
        """uint8 (n, C, size, size) of the positions [start, stop)."""
        index, boxes, mirrored = (part[start:stop] for part in draws)
        # Lines of the three channels lie side by side, so that each pass is one product a picture.
        x = self._images.index_select(0, index).transpose(1, 2).float()
        n, height, channels, width = x.shape
        top, bottom, left, right = boxes.unbind(1)
        size = self.pitch
        rows = box_weights(top, bottom, torch.zeros_like(top), (height, size), self._interpolation)
        columns = box_weights(left, right, mirrored, (width, size), self._interpolation)
        with products(tf32=False), torch.autocast(x.device.type, enabled=False):
            wide = _rounded(torch.bmm(x.reshape(n, -1, width), columns.transpose(1, 2)))
            out = _rounded(torch.bmm(rows, wide.view(n, height, -1)))
        return out.to(torch.uint8).view(n, size, channels, size).transpose(1, 2).contiguous()


def box_weights(
    start: Tensor, stop: Tensor, mirrored: Tensor, sides: tuple[int, int], interpolation: Interpolation
) -> Tensor:
    """float32 (n, target, source): how much each pixel of a line gives to each of the resized range [start, stop).

    The filters of `interpolate(..., antialias=True)`: a triangle, or Keys' cubic with a = -0.5.
    """
    source, target = sides
    start, stop, mirrored = (tensor.view(-1, 1, 1) for tensor in (start, stop, mirrored))
    scale = (stop - start).float() / target
    place = torch.arange(target, device=start.device).view(1, -1, 1)
    place = torch.where(mirrored.bool(), target - 1 - place, place)
    pixel = torch.arange(source, device=start.device)
    t = (pixel - start + 0.5 - scale * (place + 0.5)).div_(scale.clamp(min=1)).abs_()
    if interpolation == "bilinear":
        weights = (1 - t).clamp_(min=0)
    else:
        near = (t * 1.5 - 2.5).mul_(t).mul_(t).add_(1)
        far = (t * -0.5 + 2.5).mul_(t).sub_(4).mul_(t).add_(2)
        weights = torch.where(t < 1, near, far.mul_(t < 2))
    # Whole before they are added up, so that their sum is exact as well.
    weights.mul_((pixel >= start) & (pixel < stop)).div_(_UNIT).round_()
    return weights.div_(weights.sum(dim=-1, keepdim=True).mul_(_UNIT)).round_().mul_(_UNIT)


def _rounded(x: Tensor) -> Tensor:
    return x.add_(0.5).floor_().clamp_(0, 255)
