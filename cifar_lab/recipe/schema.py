"""The recipe: frozen sections whose fields are the only home of defaults, documentation and limits.

Each field is either part of the run's *identity* (it changes the result) or *operational* (it does not:
where data lie, how often to log). `operational(...)` marks the second kind.
"""

from functools import cache
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field
from pydantic.fields import FieldInfo

from cifar_lab.recipe.augment import Augment
from cifar_lab.recipe.section import (
    Fraction,
    InnerFraction,
    NonNegativeFloat,
    NonNegativeInt,
    Part,
    PositiveFloat,
    PositiveFloats,
    PositiveInt,
    Rate,
    Section,
    identity,
    operational,
    per_channel,
)

SCHEMA_VERSION = 2  # of the keys and of the arithmetic: another one is another experiment
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
TrackerName = Literal["wandb", "tensorboard", "mlflow", "trackio"]
TestTimeAugmentation = bool | Literal["translate"]


class Data(Section):
    """Which pictures, how many, and at what size."""

    name: str = identity("cifar10", "Source: a file of cifar_lab/data/sources, or your own as ./mine.py.")
    args: dict[str, Any] = identity({}, "Keyword arguments of that source.")
    root: str | None = operational(None, "Folder or archive of the data; null: $CIFAR_LAB_DATA, ./data, the hub.")
    val_size: NonNegativeInt | InnerFraction = identity(
        0.1, "Training images held out for validation, of each class in proportion: a number, or a part of them."
    )
    test_size: NonNegativeInt | InnerFraction | None = identity(
        None, "Training images that are the test split (a number, or a part); 0: there is none; null: the data's own."
    )
    limit: PositiveInt | None = identity(None, "Use only this many training images, balanced over classes.")
    test_limit: PositiveInt | None = identity(None, "Use only this many test images, balanced over classes.")
    image_size: PositiveInt | None = identity(None, "Side in pixels of the model's input; null: as the source.")
    interpolation: Literal["bicubic", "bilinear"] = identity("bicubic", "Filter of the resize (antialiased).")
    mean: Annotated[tuple[Fraction, ...], Field(strict=False), AfterValidator(per_channel)] | None = identity(
        None, "Three (red, green, blue) or one for all, 0 to 1; null: that of the initial weights, else of the data."
    )
    std: Annotated[tuple[Part, ...], Field(strict=False), AfterValidator(per_channel)] | None = identity(
        None, "Three (red, green, blue) or one for all, 0 to 1; null: that of the initial weights, else of the data."
    )
    max_gib: PositiveFloat = operational(16.0, "Refuse data that need more memory than this, decoded.")
    augment: Augment = identity(Augment(), "Augmentation of training pictures.")


class Model(Section):
    """Which network and which initial weights."""

    name: str = identity(..., "Family: a file of cifar_lab/models/families, or your own as ./mine.py.")
    args: dict[str, Any] = identity({}, "Keyword arguments of that family's `build`.")
    pretrained: bool = identity(
        False, "Start from published weights of timm or torchvision (needs network or their cache)."
    )
    weights: str | None = identity(None, "Start from a local .safetensors file or a run directory.")


class Optim(Section):
    """Optimizer and learning-rate schedule; the rate is a pure function of the step."""

    name: Literal["sgd", "adamw", "muon"] = identity(
        "sgd",
        "Optimizer; muon: for kernels of convolutions without groups (at least half of the net), SGD for the rest.",
    )
    lr: PositiveFloat = identity(..., "Peak learning rate at the recipe's global batch.")
    momentum: Rate = identity(0.9, "Momentum (sgd, muon).")
    nesterov: bool = identity(False, "Nesterov momentum (sgd, muon).")
    head_lr: PositiveFloat | None = identity(None, "Peak rate of other weights than kernels (muon); null: `lr`.")
    bias_lr: PositiveFloat | None = identity(None, "Peak rate of norms, biases and 1-d parameters (muon); null: `lr`.")
    rest_momentum: Rate = identity(0.9, "Momentum of other parameters than kernels (muon).")
    betas: Annotated[tuple[Rate, Rate], Field(strict=False)] = identity((0.9, 0.999), "Decay rates of moments (adamw).")
    eps: PositiveFloat = identity(1e-8, "Term added to the denominator (adamw).")
    weight_decay: NonNegativeFloat = identity(
        0.0, "Decay of weights; not of norms, biases, 1-d parameters and muon's kernels, whose norm is fixed."
    )
    layer_decay: Annotated[float, Field(gt=0, le=1)] = identity(1.0, "Rate factor from each layer to the one before.")
    warmup_epochs: NonNegativeFloat = identity(0.0, "Epochs of linear warm-up.")
    schedule: Literal["cosine", "step", "linear", "constant"] = identity("cosine", "Schedule after the warm-up.")
    milestones: Annotated[tuple[InnerFraction, ...], Field(strict=False)] = identity(
        (0.5, 0.75), "Fractions of the run at which `step` multiplies by `gamma`."
    )
    gamma: Annotated[float, Field(gt=0, le=1)] = identity(0.1, "Factor of the `step` schedule.")
    min_lr_ratio: Fraction = identity(0.0, "Final rate of `cosine` and `linear`, as a part of `lr`.")


class Train(Section):
    """How long, in what batches, and how the numbers are kept."""

    epochs: PositiveFloat | None = identity(None, "Length in epochs; or give `steps`.")
    steps: PositiveInt | None = identity(None, "Length in optimizer steps; or give `epochs`.")
    global_batch: PositiveInt = identity(..., "Samples in one optimizer step, of all processes.")
    micro_batch: PositiveInt | None = operational(None, "Most samples in one forward pass of a process.")
    precision: Literal["fp32", "bf16", "fp16"] = identity(
        "fp32", "bf16, fp16: autocast over fp32 weights; fp16, for GPUs without bf16, with a dynamic loss scale."
    )
    tf32: bool = identity(
        False, "TF32 (11 of 24 bits) in fp32 matrix products and convolutions on GPUs that have it; false: all bits."
    )
    label_smoothing: Rate = identity(0.0, "Probability that is spread over all classes.")
    class_weights: Literal["balanced"] | PositiveFloats | None = identity(
        None, "Weights of the classes in the loss, a weighted mean over the global batch; balanced: N / (K * count)."
    )
    grad_clip: PositiveFloat | None = identity(None, "Largest norm of the gradient; null: no clipping.")
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = identity(
        None, "Decay of the weights' moving average; in step t (from 0) at most (1 + t) / (10 + t), as in TensorFlow."
    )
    grad_compression: Literal["fp16", "bf16"] | None = identity(
        None, "Round gradients to this when processes exchange them (DDP only); null: do not round."
    )
    compile: bool | Literal["reduce-overhead"] = operational(
        False,
        "Use torch.compile, which rounds bf16 and fp16 at other places. `reduce-overhead`: also CUDA graphs.",
    )
    channels_last: bool = operational(True, "NHWC memory format for convolutional models.")
    grad_checkpointing: bool = operational(False, "Recompute activations in the backward pass to save memory.")
    sync_batchnorm: bool = identity(False, "Batch statistics over all processes (GPUs only).")
    deterministic: bool = operational(False, "Refuse kernels whose result depends on timing (slow on GPUs).")
    on_nonfinite: Literal["stop", "skip"] = identity("stop", "What to do at a non-finite gradient.")
    hang_timeout: PositiveFloat | None = operational(
        300.0, "The watchdog ends the run after so many seconds without a step; null: never."
    )
    max_skipped: PositiveInt = identity(20, "Steps that `on_nonfinite: skip` may skip before the run stops.")


class Eval(Section):
    """When and how a split is measured."""

    every_epochs: PositiveFloat = operational(1.0, "Epochs between validations.")
    batch: PositiveInt = operational(500, "Samples in one forward pass of a process.")
    tta: TestTimeAugmentation = identity(
        False,
        "Test-time augmentation: true averages the logits of a picture and its mirror image, `translate` also those of "
        "both moved by a pixel along the diagonal (arXiv 2404.00498).",
    )


class Checkpoint(Section):
    """When state is saved."""

    every_epochs: PositiveFloat | None = operational(None, "Epochs between checkpoints (default 1).")
    every_steps: PositiveInt | None = operational(None, "Optimizer steps between checkpoints.")
    keep_last: Annotated[int, Field(ge=2)] = operational(2, "Checkpoints to keep; at least two.")


class Log(Section):
    """How often metrics are written."""

    every_steps: PositiveInt = operational(50, "Optimizer steps between log lines (the only host synchronisation).")


class Tracking(Section):
    """Where metrics go besides metrics.jsonl, which is always written."""

    to: Annotated[tuple[TrackerName, ...], Field(strict=False)] | None = operational(
        None, "Trackers; null: W&B where `wandb_project` is set."
    )
    wandb_project: str | None = operational(None, "Project in each tracker (null: the recipe's name).")
    wandb_entity: str | None = operational(None, "W&B team or user.")
    tags: Annotated[tuple[str, ...], Field(strict=False)] = operational((), "W&B tags.")


class Recipe(Section):
    """One experiment."""

    name: Annotated[str, Field(pattern=NAME, max_length=100)] = identity(
        ..., "Name of the experiment and of its folder below runs/."
    )
    seed: Annotated[int, Field(ge=0, lt=2**31)] = identity(0, "Seed of everything random.")
    data: Data = identity(Data(), "Pictures.")
    model: Model = identity(..., "Network.")
    optim: Optim = identity(..., "Optimizer.")
    train: Train = identity(..., "Training.")
    eval: Eval = identity(Eval(), "Evaluation.")
    checkpoint: Checkpoint = identity(Checkpoint(), "Checkpoints.")
    log: Log = identity(Log(), "Logging.")
    tracking: Tracking = identity(Tracking(), "Experiment tracking.")


@cache
def sections(section: type[Section] = Recipe, name: str = "") -> dict[str, type[Section]]:
    """Every section by its dotted name, each before those in it; the recipe itself is ``."""
    found = {name: section}
    for key, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            found |= sections(field.annotation, dotted(name, key))
    return found


@cache
def fields() -> dict[str, FieldInfo]:
    """Every field that is no section by its dotted key, in the order of the schema."""
    return {
        dotted(name, key): field
        for name, section in sections().items()
        for key, field in section.model_fields.items()
        if dotted(name, key) not in sections()
    }


def dotted(section: str, name: str) -> str:
    """The key of a field of a section."""
    return f"{section}.{name}" if section else name
