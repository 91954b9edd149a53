"""Randomness without state: every draw is a hash of (seed, epoch, purpose, sample id).

Nothing here remembers anything, so any process can make any draw of any epoch, in any order, and get the same number.
All arithmetic is wrapped int64, which is exact and therefore equal on every device.
"""

from enum import IntEnum
from functools import reduce

import torch
from torch import Tensor

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


class Purpose(IntEnum):
    """What a draw is for. A number is never changed or reused: that would change every published run."""

    ORDER = 1
    CROP_Y = 2
    CROP_X = 3
    FLIP = 4
    CUTOUT_Y = 5
    CUTOUT_X = 6
    ERASE = 7
    ERASE_AREA = 8  # one key per attempt is derived from it
    ERASE_ASPECT = 9
    ERASE_Y = 10
    ERASE_X = 11
    MIX_CHOICE = 12
    MIX_LAMBDA = 13
    MIX_BOX_Y = 14
    MIX_BOX_X = 15
    RANDAUGMENT_OP = 16  # with the index of the operation
    RANDAUGMENT_SIGN = 17
    TORCH_SEED = 18
    SPLIT = 19
    RANDAUGMENT_APPLY = 20  # with the index of the operation
    RANDAUGMENT_LEVEL = 21
    ERASE_VALUE = 22  # one key per pixel is derived from it
    BOX_AREA = 23  # with the index of the attempt
    BOX_RATIO = 24
    VERTICAL_FLIP = 25
    ROTATION = 26
    COLOR = 27  # with the index of the adjustment


def _signed(value: int) -> int:
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


def _xor_shift(h: Tensor, bits: int) -> Tensor:
    # int64 has no logical shift: the sign bits that an arithmetic one brings in are masked away.
    return (h >> bits).bitwise_and_((1 << (64 - bits)) - 1).bitwise_xor_(h)


def _mix(h: Tensor) -> Tensor:
    h = _xor_shift(h, 30).mul_(_signed(0xBF58476D1CE4E5B9))
    h = _xor_shift(h, 27).mul_(_signed(0x94D049BB133111EB))
    return _xor_shift(h, 31)


def _absorb(h: int, key: int) -> int:
    h = ((h ^ (key & _MASK)) + _GOLDEN) & _MASK
    h = ((h ^ (h >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    h = ((h ^ (h >> 27)) * 0x94D049BB133111EB) & _MASK
    return h ^ (h >> 31)


def hash64(*keys: int, ids: Tensor) -> Tensor:
    """Hash integers, in which the order matters, and then each of `ids`, int64, into int64.

    SplitMix64's finaliser (Steele et al. 2014), chained.
    """
    return _mix((ids ^ _signed(reduce(_absorb, keys, 0))).add_(_signed(_GOLDEN)))


def uniform(h: Tensor) -> Tensor:
    """float64 in [0, 1) from the upper 53 bits of a hash."""
    return ((h >> 11) & ((1 << 53) - 1)).double().mul_(2.0**-53)


def integers(h: Tensor, n: int | Tensor) -> Tensor:
    """int64 in [0, n), n < 2**31, from the upper 31 bits of a hash."""
    return (((h >> 33) & ((1 << 31) - 1)) * n) >> 31


def draw(ids: Tensor, seed: int, epoch: int, purpose: Purpose, index: int = 0) -> Tensor:
    """The hashes of samples `ids` for one purpose in one epoch; `index` tells apart several draws of one purpose."""
    return hash64(seed, epoch, purpose, index, ids=ids)


def epoch_order(ids: Tensor, seed: int, epoch: int) -> Tensor:
    """Positions of `ids` in the order in which epoch `epoch` visits them, int64 of shape (N,)."""
    return torch.argsort(draw(ids, seed, epoch, Purpose.ORDER), stable=True)


def torch_seed(seed: int, step: int, micro_batch: int) -> int:
    """Seed below 2**63 for `torch.manual_seed` before the forward of one micro-batch (dropout, drop path)."""
    # On integers, without a tensor: this is asked for in every micro-batch.
    return reduce(_absorb, (seed, Purpose.TORCH_SEED, step, micro_batch), 0) & ((1 << 63) - 1)
