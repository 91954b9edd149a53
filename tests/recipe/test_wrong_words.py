"""Numbers as people write them, and keys as other trainers call them: each is answered with what to write."""

from pathlib import Path

import pytest
from recipe.test_bad_recipes import LINES

from cifar_lab.recipe import RecipeError, load_recipe

FLOATS = [
    ("0,05", "0.05"),
    ("-0,5", "-0.5"),
    ("1,5e-3", "1.5e-3"),
    ("10%", "0.1"),
    ("12,5 %", "0.125"),
    ("1,000", "1000 or 1.000"),
    ("1.234,5", "1234.5"),
    ("1,234.5", "1234.5"),
    ("1.000.000", "1000000"),
    ("1_000", "1000"),
    ("1 000", "1000"),
    ("1'000", "1000"),
    ("\N{MINUS SIGN}1", "-1"),
    ('"0.1"', "0.1 without quotes"),
]
INTEGERS = [
    ("1,024", "1024"),
    ("1.024", "1024"),
    ("1_024", "1024"),
    ("1 024", "1024"),
    ("1.000.000", "1000000"),
    ("512.0", "512"),
    ("5e2", "500"),
    ('"64"', "64 without quotes"),
]
LISTS = [
    ("0.9, 0.95", "[0.9, 0.95]"),
    ("0.9;0.95", "[0.9, 0.95]"),
    ("0,9", "[0, 9] or [0.9]"),
    ("0.9", "[0.9]"),
]
# Nobody knows what they mean, or they are no numbers.
UNKNOWN = ["1,5,7", "1/10", "010", "0.1f", "1,00,000", "1e999", "nine", "true", "[0.1]", "0x10", ",", "%", "9" * 5000]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("words") / "sample.yaml"
    path.write_text("\n".join(LINES), encoding="utf-8")
    return path


def problem(recipe: Path, *overrides: str) -> str:
    """What is said, of one problem."""
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe, overrides)
    (found,) = caught.value.problems
    return found


@pytest.mark.parametrize(
    ("key", "given", "write"),
    [
        *(("optim.lr", *pair) for pair in FLOATS),
        *(("train.global_batch", *pair) for pair in INTEGERS),
        *(("optim.betas", *pair) for pair in LISTS),
        ("model.args.width", "1,024", "1024"),
    ],
)
def test_a_number_in_another_form_is_answered_with_its_form(recipe: Path, key: str, given: str, write: str) -> None:
    said = problem(recipe, f"{key}={given}", *(["optim.name=adamw"] if key == "optim.betas" else []))
    assert said.startswith(f"override: {key}: Input should be a ")
    assert said.endswith(f"; write {write}"), said


@pytest.mark.parametrize("given", ["1e-3", "5e-4", ".1", "0.05", "1.", "+0.1", "1E-3"])
def test_forms_that_are_numbers(recipe: Path, given: str) -> None:
    assert load_recipe(recipe, [f"optim.lr={given}"]).optim.lr == float(given)


@pytest.mark.parametrize("key", ["optim.lr", "train.global_batch"])
@pytest.mark.parametrize("given", UNKNOWN, ids=lambda text: text[:12])
def test_what_has_no_form_is_given_none(recipe: Path, key: str, given: str) -> None:
    assert "write" not in problem(recipe, f"{key}={given}")


# As users of timm, Lightning, transformers and hydra write it; what they are answered behind "unknown key".
KEYS = [
    ("optim.learning_rate", " (did you mean `lr`?)"),
    ("optim.weight-decay", " (did you mean `weight_decay`?)"),
    ("optim.warmup", " (did you mean `warmup_epochs`?)"),
    ("optim.opt", " (did you mean `name`?)"),
    ("optim.type", " (did you mean `name`?)"),
    ("optim.sched", " (did you mean `schedule`?)"),
    ("train.lr", " (did you mean `optim.lr`?)"),
    ("train.seed", " (did you mean `seed`?)"),
    ("train.batch_size", " (did you mean `global_batch`?)"),
    ("train.batch", " (did you mean `global_batch`?)"),
    ("train.per_device_train_batch_size", " (did you mean `global_batch`?)"),
    ("data.batch_size", " (did you mean `train.global_batch`?)"),
    ("batch_size", " (did you mean `train.global_batch`?)"),
    ("epochs", " (did you mean `train.epochs`?)"),
    ("train.max_epochs", " (did you mean `epochs`?)"),
    ("train.num_train_epochs", " (did you mean `epochs`?)"),
    ("train.amp", " (did you mean `precision`?)"),
    ("train.fp16", " (did you mean `precision`?)"),
    ("train.mixed_precision", " (did you mean `precision`?)"),
    ("train.max_grad_norm", " (did you mean `grad_clip`?)"),
    ("train.gradient_clip_val", " (did you mean `grad_clip`?)"),
    ("train.accumulate_grad_batches", " (did you mean `micro_batch`?)"),
    ("train.ema", " (did you mean `ema_decay`?)"),
    ("train.eval_steps", " (did you mean `eval.every_epochs`?)"),
    ("train.save_steps", " (did you mean `checkpoint.every_steps`?)"),
    ("data.path", " (did you mean `root`?)"),
    ("data.dir", " (did you mean `root`?)"),
    ("data_dir", " (did you mean `data.root`?)"),
    ("data.img_size", " (did you mean `image_size`?)"),
    ("data.mixup", " (did you mean `augment.mixup_alpha`?)"),
    ("data.augment.mixup", " (did you mean `mixup_alpha`?)"),
    ("model.arch", " (did you mean `args.arch`?)"),
    ("model.type", " (did you mean `name`?)"),
    ("model.checkpoint", " (did you mean `weights`?)"),
    ("eval.every", " (did you mean `every_epochs`?)"),
    ("eval.batch_size", " (did you mean `batch`?)"),
    ("checkpoint.every", " (did you mean `every_epochs` or `every_steps`?)"),
    ("log.every", " (did you mean `every_steps`?)"),
    ("tracking.project", " (did you mean `wandb_project`?)"),
    ("report_to", " (did you mean `tracking.to`?)"),
    ("wandb.project", " (did you mean `tracking.wandb_project`?)"),
    ("trainer.max_epochs", " (did you mean `train`?)"),
    ("seed_everything", " (did you mean `seed`?)"),
    # nothing of ours is near
    ("checkpoint.best", "; `checkpoint` has every_epochs, every_steps, keep_last"),
    ("checkpoint.monitor", "; `checkpoint` has every_epochs, every_steps, keep_last"),
    ("eval.split", "; `eval` has every_epochs, batch, tta"),
    ("model.head", "; `model` has name, args, pretrained, weights"),
    ("model.dropout", "; `model` has name, args, pretrained, weights"),
    ("data.shuffle", "; `data` has name, args, root,"),
    ("data.augment.aa", "; `data.augment` has crop_padding,"),
    ("train.early_stopping", "; `train` has epochs, steps,"),
    # what no recipe says
    ("data.num_workers", "; not needed: all pictures are kept on the device"),
    ("num_workers", "; not needed: all pictures are kept on the device"),
    ("model.num_classes", "; the classes of the data are counted"),
    ("train.devices", "; the launcher says it, see `launch/node.sh --help`"),
    ("train.resume", "; starting the same recipe again continues its run"),
    ("output_dir", "; say it with the option --runs DIR"),
]


@pytest.mark.parametrize(("key", "answer"), KEYS)
def test_a_key_of_another_trainer_is_answered(recipe: Path, key: str, answer: str) -> None:
    said = problem(recipe, f"{key}=1")
    place, _, told = said.partition(": unknown key")
    assert key.startswith(place.removeprefix("override: "))
    assert told.startswith(answer), said
