"""Scores in which each class counts alike, for splits whose classes are not equally frequent."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def balanced_scores(labels: NDArray[Any], predictions: NDArray[Any]) -> dict[str, float]:
    """`balanced_accuracy` and `macro_f1` of n > 0 pictures, both arguments being integers (n,).

    The first is the mean recall of the classes that have pictures (Brodersen et al. 2010), the second the mean over
    those that have pictures or were predicted of 2 TP / (2 TP + FP + FN) (Opitz and Burst 2019, arXiv 1911.03347).
    """
    found, places = np.unique(np.concatenate([labels, predictions]), return_inverse=True)
    truth, guess = np.split(places, 2)
    count, taken, right = (np.bincount(of, minlength=len(found)) for of in (truth, guess, truth[truth == guess]))
    recall = right[count > 0] / count[count > 0]
    return {"balanced_accuracy": float(recall.mean()), "macro_f1": float((2 * right / (count + taken)).mean())}
