"""Loading from the Hugging Face hub through `datasets`, with one quick message when it cannot be reached; no torch."""

import threading
from functools import partial
from pathlib import Path
from typing import Any

from cifar_lab.data.raw import DataError
from cifar_lab.data.tables import Table, Tables


def hub_splits(dataset_id: str, config: str | None = None) -> Tables:
    """All splits of a data set on the hub, or of the copy in the cache of `datasets`. Raises DataError."""
    import datasets
    from huggingface_hub import constants

    reachable = hub_is_reachable()
    if not reachable:
        # Both libraries read the variable only once, so it is switched where they keep it, until this process ends.
        datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        loaded = datasets.load_dataset(dataset_id, config)
    except (OSError, ValueError, RuntimeError) as error:  # what datasets and huggingface_hub raise for users' mistakes
        reason = f"cannot be loaded from the hub: {error}"
        if not reachable:
            reason = "is not in the cache of `datasets` and the hub cannot be reached"
        raise DataError(f"{dataset_id!r} {reason}") from error
    return _tables(dataset_id, loaded)


def saved_splits(folder: Path) -> Tables:
    """The splits of a folder written by `save_to_disk`. Raises DataError if it is damaged."""
    import datasets

    try:
        return _tables(str(folder), datasets.load_from_disk(str(folder)))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder} cannot be read ({error}): write it again with save_to_disk") from error


def _tables(name: str, loaded: Any) -> Tables:
    """The tables of a `DatasetDict`, or of one `Dataset` under the name of its split."""
    import datasets
    import pyarrow.dataset as pads

    if isinstance(loaded, datasets.Dataset):
        loaded = {str(loaded.split or "train"): loaded}
    return {
        str(split): partial(
            Table, f"{name} ({split})", dataset.features.to_dict(), pads.dataset(dataset.with_format("arrow")[:])
        )
        for split, dataset in loaded.items()
    }


def hub_is_reachable(timeout: float = 4.0) -> bool:
    """Whether the hub answers at all; `datasets` by itself retries for 20 seconds or more."""
    from huggingface_hub import constants, get_session

    answered = threading.Event()

    def ask() -> None:
        try:
            get_session().head(constants.ENDPOINT, timeout=timeout)
        except Exception:  # whatever the HTTP library of this huggingface_hub version raises: no answer
            return
        answered.set()

    # A thread, since resolving a name has no time limit of its own.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(timeout + 1)
    return answered.is_set()
