"""Any image-classification data set that `datasets` can load, from the hub or from a copy at `data.root`.

A copy is a folder written by `save_to_disk`, a folder of parquet files, or folders of pictures as those of `folder`.
"""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from cifar_lab.data.arguments import Fit, ImageColumn, LabelColumn, OnBroken, Size, TestSplit, TrainSplit, ValSplit
from cifar_lab.data.on_disk import files_below, stamp
from cifar_lab.data.raw import DataError, RawSplit
from cifar_lab.data.sources import folder
from cifar_lab.data.tables import Tables, find_tables, key_of, read_split


def load(
    split: str,
    *,
    root: str | None,
    id: Annotated[str, Field(description="Name of the data set on the hub (owner/name), or a folder.")],
    config: Annotated[str | None, Field(description="Configuration of the data set, where it has several.")] = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    train_split: TrainSplit = "train",
    val_split: ValSplit = None,
    test_split: TestSplit = "test",
    size: Size = None,
    fit: Fit = "crop",
    on_broken: OnBroken = "error",
) -> RawSplit | None:
    """`split` of the data set `id`.

    Raises DataError for what is missing or ambiguous, naming the argument to set.
    """
    if split == "val" and val_split is None:
        return None  # without asking the hub
    tables = _tables(find(root, id=id, config=config, train_split=train_split), id, config, train_split)
    names = train_split, val_split, test_split
    how = {"images": image_column, "labels": label_column, "size": size, "fit": fit, "on_broken": on_broken}
    return read_split(split, tables, root or id, names, **how)


def cache_key(*, root: str | None, **args: Any) -> str:
    """Place and arguments, with the stamp of what is read of a folder; a change on the hub itself is not seen."""
    place = find(root, **args)
    if place is None:
        return key_of("hub", {}, args)
    if is_saved(place):  # without importing `datasets`
        return key_of(place.resolve(), {}, args) + stamp(files_below(place, (".arrow", ".json")))
    return key_of(
        place.resolve(), _tables(place, args["id"], args.get("config"), args.get("train_split", "train")), args
    )


def find(root: str | None, *, id: str, **args: Any) -> Path | None:
    """The folder with a copy; None: only the hub is left. Raises DataError."""
    place = Path(root or id).expanduser()
    if root and not place.is_dir():
        raise DataError(f"data.root={root} is no folder: it must hold a copy of {id!r}, or leave it out")
    if not place.is_dir():
        return None
    if not is_saved(place) and not find_tables(place, args.get("config")):
        folder.tables(str(place), args.get("train_split", "train"))  # which says what is missing
    return place


def is_saved(place: Path) -> bool:
    """Whether this is a folder that `save_to_disk` wrote."""
    return (place / "dataset_dict.json").is_file() or (place / "state.json").is_file()


def _tables(place: Path | None, id: str, config: str | None, train_split: str) -> Tables:
    from cifar_lab.data.hub_access import hub_splits, saved_splits

    if place is None:
        try:
            return hub_splits(id, config)
        except DataError as error:
            raise DataError(f"{error}. Check data.args.id and data.args.config, or set data.root to a copy") from error
    if is_saved(place):
        return saved_splits(place)
    return find_tables(place, config) or folder.tables(str(place), train_split)
