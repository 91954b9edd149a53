"""README.md of an exported model: what it is and how good, in numbers that were measured, and what is not known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cifar_lab.recipe import Recipe, to_yaml
from cifar_lab.recipe.schema import Tracking
from cifar_lab.recipe.yaml_text import scalar
from cifar_lab.trained.model import SavedModel

UNKNOWN = "not known"


def model_card(saved: SavedModel, use: str, library: str | None = None) -> str:
    """Markdown with the hub's header; `use` is a section on how the exported files are loaded."""
    name = saved.recipe.name if saved.run is not None else saved.description.name
    summary = (saved.run.summary() if saved.run is not None else None) or {}
    return "\n\n".join(
        [
            _header(saved, name, summary, library),
            f"# {name}",
            _what_it_is(saved, summary),
            f"## Use\n\n{use}",
            f"## Results\n\n{_results(saved, summary)}",
            f"## How it was made\n\n{_origin(saved, summary)}",
            f"## What is not known\n\n{_unknown(saved, summary)}",
        ]
    )


def _header(saved: SavedModel, name: str, summary: dict[str, Any], library: str | None) -> str:
    lines = ["---", "pipeline_tag: image-classification", "tags: [image-classification, cifar-lab]"]
    if library:
        lines.append(f"library_name: {library}")
    test = summary.get("test")
    if saved.run is not None and saved.recipe.data.name == "cifar10":
        lines.append("datasets: [cifar10]")
        # The hub compares these numbers: only what one pass, as exported, reaches on all pictures.
        if test and saved.recipe.data.test_limit is None and not saved.recipe.eval.tta:
            lines += ["model-index:", f"  - name: {_quoted(name)}", "    results:"]
            lines += [
                "      - task: {type: image-classification}",
                "        dataset: {name: CIFAR-10, type: cifar10, split: test}",
            ]
            lines += [f"        metrics: [{{type: accuracy, value: {test['accuracy']:.4f}}}]"]
    return "\n".join([*lines, "---"])


def _quoted(text: str) -> str:
    return text if isinstance(scalar(text), str) else f'"{text}"'


def _what_it_is(saved: SavedModel, summary: dict[str, Any]) -> str:
    description = saved.description
    arch = description.args.get("arch")
    what = f"`{description.name}`" + (f" `{arch}`" if arch else f" with {description.args}" if description.args else "")
    parameters = f", {summary['num_parameters']:,} parameters" if summary.get("num_parameters") else ""
    size, mean, std = description.image_size, description.mean, description.std
    classes = ", ".join(description.classes[:20]) + (", ..." if description.num_classes > 20 else "")
    lines = [
        f"An image classifier of {description.num_classes} classes ({classes}): {what}{parameters}.",
        "",
        f"It is fed RGB pictures of {size} x {size} pixels, with mean {_numbers(mean)} and standard deviation "
        f"{_numbers(std)} on the 0..1 scale.",
    ]
    source = description.source_size
    if source is not None and source != size:
        lines[-1] += (
            f" The data set's pictures have {source} pixels and were resized ({description.interpolation}, "
            f"antialiased): larger pictures should be shrunk to {source} pixels first."
        )
    return "\n".join(lines)


def _numbers(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:.4f}" for value in values) + ")"


def _results(saved: SavedModel, summary: dict[str, Any]) -> str:
    rows = ["| split | pictures | accuracy | loss |", "|---|---:|---:|---:|"]
    for split, name in (("test", "test"), ("val", "held out of training")):
        found = summary.get(split)
        if found:
            rows.append(f"| {name} | {found['count']:,} | {found['accuracy']:.2%} | {_loss(found['loss'])} |")
    if len(rows) == 2:
        return "Not measured."
    if saved.recipe.eval.tta:
        rows += ["", "Measured with test-time augmentation, the mean over changed copies of each picture."]
        rows += ["What is exported is a single pass, whose accuracy was not measured here."]
    return "\n".join(rows)


def _loss(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _origin(saved: SavedModel, summary: dict[str, Any]) -> str:
    if saved.run is None:
        return "From a weights file without its run: recipe, seed and training are not known."
    recipe, env = saved.recipe, saved.run.env()
    start = (
        "the weights that timm publishes"
        if recipe.model.pretrained
        else f"the weights in `{Path(recipe.model.weights).name}`"
        if recipe.model.weights
        else "scratch"
    )
    revision = env.get("revision") or UNKNOWN
    packages = env.get("packages") or {}
    lines = [
        f"- Trained with cifar_lab {env.get('cifar_lab') or '(version not known)'}, revision {revision}, from {start}.",
        f"- Seed {recipe.seed}; {summary.get('steps', UNKNOWN)} steps, {summary.get('epochs', UNKNOWN)} epochs.",
        f"- On {env.get('device') or UNKNOWN}, world size {summary.get('world_size', UNKNOWN)}, micro-batch "
        f"{summary.get('micro_batch', UNKNOWN)}, {summary.get('strategy', UNKNOWN)}; "
        f"torch {packages.get('torch') or UNKNOWN}, timm {packages.get('timm') or UNKNOWN}.",
    ]
    return "\n".join([*lines, "", "The recipe, resolved:", "", "```yaml", to_yaml(_public(recipe)).rstrip(), "```"])


def _public(recipe: Recipe) -> Recipe:
    """Without what is this machine's and this team's own: folders and where it was tracked."""
    weights = recipe.model.weights and Path(recipe.model.weights).name
    changes = {
        "data": recipe.data.model_copy(update={"root": None}),
        "model": recipe.model.model_copy(update={"weights": weights}),
        "tracking": Tracking(),
    }
    return recipe.model_copy(update=changes)


def _unknown(saved: SavedModel, summary: dict[str, Any]) -> str:
    """Said, so that nobody reads more into the numbers."""
    lines = ["- The licence of the weights: it is for whoever publishes them to say."]
    if not summary.get("test"):
        lines.append("- How good it is: no measurement came with the weights.")
    else:
        lines.append("- How much the accuracy varies over seeds: this is one run.")
        lines.append("- How it does on anything but pictures like those of its data set.")
    if saved.run is not None and saved.recipe.data.name == "cifar10":
        lines.append("- Whether the pictures were the official files of CIFAR-10, or copies of them encoded anew.")
    if saved.run is not None and not summary.get("val"):
        lines.append("- Held-out accuracy: no training pictures were held out.")
    if saved.run is not None and str(saved.run.env().get("revision") or "").endswith("-dirty"):
        lines.append("- The exact source: it had changes that were not committed.")
    return "\n".join(lines) + "\n"
