"""Which samples are tested on, held out and trained on: by a hash of the id within each class, whatever the seed."""

import logging
from collections.abc import Sequence

import torch

from cifar_lab.data.images import ImageSet, Splits
from cifar_lab.data.randomness import Purpose, hash64
from cifar_lab.data.sizes import shares
from cifar_lab.recipe.schema import Data

logger = logging.getLogger("cifar_lab")


def divide(own: Splits, data: Data) -> Splits:
    """What a recipe trains, validates (None: nothing) and tests on, of the splits that its source has.

    The test split is cut off first, so that it does not depend on what is held out; each class keeps a picture to
    train on. Raises UsageError.
    """
    known = (None if split is None else len(split) for split in (own.val, own.test))
    _, num_val, num_test = shares(data, len(own.train), *known)
    train, val, test = own.train, own.val, own.test
    if data.test_size is not None:
        if test is not None:
            logger.info("the data's own test split is not used, since data.test_size is %s", data.test_size)
        test, train = cut_off(train, num_test, keep=1)
    if val is None:
        val, train = cut_off(train, num_val, keep=1)
    counts = torch.bincount(own.train.labels.cpu())
    single = [own.train.classes[i] for i in (counts == 1).nonzero().flatten().tolist()]
    if single and len(train) < len(own.train):
        named = ", ".join(single[:5]) + ", ..." * (len(single) > 5)
        logger.info("the only picture of a class is trained on and not held out: %d (%s)", len(single), named)
    if data.limit is not None:
        train, _ = cut_off(train, data.limit)
    if data.test_limit is not None and test is not None:
        test, _ = cut_off(test, data.test_limit)
    if len(torch.bincount(train.labels).nonzero()) == 1:
        only = train.classes[int(train.labels[0])]
        logger.warning("all training pictures are of the class %r: nothing can be learnt from them", only)
    return Splits(own.train.subset(train.ids), val if num_val else None, test if num_test else None, own.sums)


def cut_off(images: ImageSet, size: int, *, keep: int = 0) -> tuple[ImageSet, ImageSet]:
    """The `size` samples with the smallest hashes, in each class in proportion to its pictures, and the rest.

    Fewer where else a class would keep less than `keep`.
    """
    by_hash = torch.argsort(hash64(Purpose.SPLIT, ids=images.ids), stable=True)
    by_class = by_hash[images.labels[by_hash].argsort(stable=True)]
    ranked = torch.split(images.ids[by_class], torch.bincount(images.labels).tolist())
    counts = proportional([len(ids) for ids in ranked], size, keep)
    taken = torch.cat([ids[:count] for ids, count in zip(ranked, counts, strict=True)]).sort().values
    rest = torch.cat([ids[count:] for ids, count in zip(ranked, counts, strict=True)]).sort().values
    return images.subset(taken), images.subset(rest)


def proportional(counts: Sequence[int], total: int, keep: int = 0) -> list[int]:
    """`total` shared out in proportion to `counts` by largest remainders; fewer if else less than `keep` were left."""
    whole = sum(counts) or 1
    most = [max(count - keep, 0) for count in counts]
    total = min(total, sum(most))
    shares = [count * total // whole for count in counts]
    by_remainder = sorted(range(len(counts)), key=lambda i: (-(counts[i] * total % whole), i))
    while left := total - sum(shares):
        for i in [i for i in by_remainder if shares[i] < most[i]][:left]:
            shares[i] += 1
    return shares
