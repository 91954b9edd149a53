"""Bad recipes: each mistake is answered with one message that names the place, the key and the fix."""

from __future__ import annotations

from pathlib import Path

import pytest

from cifar_lab.recipe import RecipeError, load_recipe

LINES = """\
name: sample
seed: 0
data:
  name: cifar10
  val_size: 100
  image_size: 32
  augment:
    crop_padding: 4
    flip: true
model:
  name: resnet
  args:
    depth: 18
optim:
  name: sgd
  lr: 0.1
train:
  epochs: 2
  global_batch: 64
""".splitlines()

# (the line that is replaced, its new text, where the problem is, a part of the message that holds the fix)
BAD_LINES = [
    # keys
    (16, "  lrr: 0.1", "16: optim.lrr", "unknown key (did you mean `lr`?)"),
    (2, "lr: 0.1", "2: lr", "unknown key (did you mean `optim.lr`?)"),
    (2, "batch_size: 64", "2: batch_size", "did you mean `train.global_batch`?"),
    (2, "base: other.yaml", "2: base", "one file describes the whole experiment"),
    (2, "model.args.width: 3", "2: model.args.width", "write sections as nested mappings"),
    (2, "zzz: 1", "2: zzz", "unknown key; a recipe has name, seed, data"),
    (5, "  crop_padding: 4", "5: data.crop_padding", "did you mean `augment.crop_padding`?"),
    (9, "    flips: true", "9: data.augment.flips", "did you mean `flip`?"),
    (2, "name: again", "2: name", "given twice, first on line 1; delete one"),
    (16, "  lr: 0.1\n  lr: 0.2", "17: optim.lr", "given twice, first on line 16"),
    (6, "  augment: {flip: true}", "7: data.augment", "given twice, first on line 6"),
    (2, "12: 0", "2", "`12` is not a key; keys are names"),
    (2, "? [a, b]\n: 1", "2", "this is not a key; keys are names"),
    # missing
    (1, "", "1: name", "is missing; give its value: Name of the experiment"),
    (16, "", "14: optim.lr", "is missing; give its value: Peak learning rate"),
    (19, "", "17: train.global_batch", "is missing; give its value: Samples in one optimizer step"),
    (18, "", "17: train.epochs", "give `train.epochs` or `train.steps`"),
    (11, "", "10: model.name", "is missing; give its value: Family: a file of cifar_lab/models/families"),
    # types and ranges
    (2, "seed: abc", "2: seed", 'should be a valid integer, found "abc"'),
    (2, "seed: true", "2: seed", "found true"),
    (2, "seed: 1.5", "2: seed", "should be a valid integer"),
    (2, "seed: -1", "2: seed", "greater than or equal to 0, found -1"),
    (2, "seed: 010", "2: seed", 'a valid integer, found "010"'),
    (2, f"seed: {'9' * 5000}", "2: seed", "should be a valid integer"),
    (19, "  global_batch: 6.4e1", "19: train.global_batch", "a valid integer, found 64.0"),
    (19, '  global_batch: "64"', "19: train.global_batch", 'a valid integer, found "64"'),
    (19, "  global_batch: 1_000", "19: train.global_batch", 'a valid integer, found "1_000"'),
    (19, "  global_batch: 0", "19: train.global_batch", "should be greater than 0, found 0"),
    (19, "  global_batch:", "19: train.global_batch", "found nothing"),
    (18, "  epochs: -3", "18: train.epochs", "should be greater than 0, found -3"),
    (18, "  epochs: None", "18: train.epochs", 'a valid number, found "None"'),
    (16, "  lr: .nan", "16: optim.lr", "a finite number, found NaN"),
    (16, "  lr: [0.1]", "16: optim.lr", "found [0.1]"),
    (16, "  lr: 0.1, 0.2", "16: optim.lr", "should be a valid number"),
    (1, "name: 2024", "1: name", "should be a valid string, found 2024"),
    (1, "name: a/b", "1: name", 'should match pattern \'^[A-Za-z0-9][A-Za-z0-9_.-]*$\', found "a/b"'),
    (1, "name: ../up", "1: name", "should match pattern"),
    (9, "    flip: yes", "9: data.augment.flip", "should be true or false or 'alternating', found"),
    (9, "    flip: alternate", "9: data.augment.flip", "did you mean `alternating`?"),
    (9, "    erase_prob: 25", "9: data.augment.erase_prob", "less than or equal to 1, found 25"),
    (15, "  name: SGD", "15: optim.name", "'sgd', 'adamw' or 'muon', found \"SGD\" (did you mean `sgd`?)"),
    (15, "  name: adam", "15: optim.name", "did you mean `adamw`?"),
    (15, "  momentum: 1", "15: optim.momentum", "should be less than 1, found 1"),
    (15, "  name: adamw\n  betas: 0.9, 0.95", "16: optim.betas", "should be a list, found"),
    (15, "  name: adamw\n  betas: [0.9, x]", "16: optim.betas[1]", 'should be a valid number, found "x"'),
    (15, "  name: adamw\n  betas: 0.9", "16: optim.betas", "should be a list, found 0.9; write [0.9]"),
    (15, "  name: adamw\n  betas: [0.9]", "16: optim.betas[1]", "Field required, found [0.9]"),
    (15, "  name: adamw\n  betas: [0.9, 1.0]", "16: optim.betas[1]", "should be less than 1, found 1.0"),
    (2, "eval: 4", "2: eval", "should be a valid dictionary or instance of Eval, found 4"),
    (4, "  args: depth", "4: data.args", 'should be a valid dictionary, found "depth"'),
    # YAML
    (16, "\tlr: 0.1", "16", "found character '\\t' that cannot start any token"),
    (16, "  lr:\t0.1", "16", "found character '\\t' that cannot start any token"),
    (16, "  lr: !!python/object:os.system 0.1", "16", "the tag `!!python/object:os.system` is refused"),
    (16, "  lr: !!float 1", "16", "the tag `!!float` is refused; write the plain value"),
    (16, "  lr: &rate 0.1", "16", "the anchor or alias `rate` is refused; write the value out"),
    (16, "  lr: *rate", "16", "the anchor or alias `rate` is refused; write the value out"),
    (16, "  lr: 0.1\n  <<: {momentum: 0.8}", "17: optim", "`<<` is not a key; keys are names, and `<<` merges nothing"),
    (19, "  global_batch: 64\n---\nname: two", "20", "found another document (expected a single document"),
    (16, "  lr: 0.1: 2", "16", "mapping values are not allowed here"),
    (16, "   lr: 0.1", "16", "mapping values are not allowed here"),
    (16, " lr: 0.1", "16", "while parsing a block mapping that begins on line 1"),
    (16, "  lr 0.1", "17", "could not find expected ':' (while scanning a simple key that begins on line 16)"),
    (1, 'name: "sample', "19", "while scanning a quoted scalar that begins on line 1"),
    (2, "eval: {tta: true", "3", "while parsing a flow mapping that begins on line 2"),
    (1, "name: @home", "1", "found character '@' that cannot start any token"),
    (1, "name: a\x07b", "1", "unprintable character (U+0007)"),
    (2, f"seed: {'[' * 5000}{']' * 5000}", "1", "nested too deeply"),
    # model and data
    (11, "  name: resnets", "11: model.name", "there is no model family `resnets` (did you mean `resnet`?)"),
    (11, "  name: ../resnet", "11: model.name", "there is no model family `../resnet`"),
    (11, "  name: _residual", "11: model.name", "there is no model family `_residual`"),
    (4, "  name: cifar11", "4: data.name", "there is no data source `cifar11` (did you mean `cifar10"),
    (4, "  name: imagenet", "4: data.name", "there are cifar10"),
    (13, "    dept: 18", "13: model.args.dept", "`resnet` has no such argument (did you mean `depth`?)"),
    (13, "    heads: 3", "13: model.args.heads", "no such argument; its arguments: depth, width"),
    (13, "    depth: 50", "13: model.args.depth", "should be 18 or 34, found 50"),
    (13, '    depth: "18"', "13: model.args.depth", 'should be 18 or 34, found "18"'),
    (13, "    width: 64.0", "13: model.args.width", "should be a valid integer, found 64.0"),
    (13, "    num_classes: 10", "13: model.args.num_classes", "is set by the trainer from the data"),
    (4, "  args: {path: x}", "4: data.args.path", "`cifar10` has no such argument; its arguments: none"),
    (10, "model:\n  weights: nowhere.safetensors", "11: model.weights", "does not exist (seen from"),
    (10, f"model:\n  weights: {__file__}", "11: model.weights", "is not a .safetensors file; pickled weights"),
    (10, f"model:\n  weights: {Path(__file__).parent}", "11: model.weights", "holds no model.safetensors"),
    (5, "  root: /nowhere/at/all", "5: data.root", "does not exist; correct it, or leave it out"),
    # contradictions
    (18, "  epochs: 2\n  steps: 10", "19: train.steps", "`train.epochs` and `train.steps` are both given"),
    (2, "checkpoint: {every_epochs: 1, every_steps: 5}", "2: checkpoint.every_steps", "`checkpoint.every_epochs` and"),
    (19, "  global_batch: 64\n  micro_batch: 128", None, None),
    (6, "  limit: 50", "19: train.global_batch", "`data.limit` is 50"),
    (9, "    mixup_alpha: 0.2\n    cutmix_alpha: 1\neval:\n  batch: 3\ntracking:\n  tags: []", None, None),
    (6, "  mean: [0.5, 0.5, 0.5]", "6: data.mean", "without `data.std`; give both or none"),
    (6, "  mean: [0.5, 0.5]\n  std: [0.2]", "6: data.mean", "three values (red, green, blue) or one for all, found"),
    (6, "  mean: [0.5]\n  std: []", "7: data.std", "give three values (red, green, blue) or one for all, found []"),
    (6, "  mean: [125.3]\n  std: [0.2]", "6: data.mean[0]", "should be less than or equal to 1, found 125.3"),
    (6, "  mean: [0.5]\n  std: [0]", "7: data.std[0]", "should be greater than 0, found 0"),
    (8, "    padding_mode: reflect", "8: data.augment.padding_mode", "since `data.augment.crop_padding` is 0"),
    (9, "    randaugment_magnitude: 5", "9: data.augment.randaugment_magnitude", "`data.augment.randaugment_ops` is 0"),
    (9, "    randaugment_prob: 0.5", "9: data.augment.randaugment_prob", "`data.augment.randaugment_ops` is 0"),
    (9, "    randaugment_std: 0.5", "9: data.augment.randaugment_std", "`data.augment.randaugment_ops` is 0"),
    (9, "    crop_ratio: [0.5, 2]", "9: data.augment.crop_ratio", "`data.augment.random_resized_crop` is None"),
    (9, "    random_resized_crop: [0.2, 1]", "9: data.augment.random_resized_crop", "`data.augment.crop_padding` and"),
    (9, "    cutout: 1", "9: data.augment.cutout", "1 erases nothing, since an odd side counts as one less; give"),
    (9, "    erase_value: random", "9: data.augment.erase_value", "`data.augment.erase_prob` is 0"),
    (16, "  lr: 0.1\n  warmup_epochs: 3", "17: optim.warmup_epochs", "longer than the run (`train.epochs` is 2)"),
    (16, "  lr: 0.1\n  betas: [0.8, 0.9]", "17: optim.betas", "no effect, since `optim.name` is sgd"),
    (15, "  name: adamw\n  momentum: 0.8", "16: optim.momentum", "no effect, since `optim.name` is adamw"),
    (16, "  lr: 0.1\n  nesterov: true\n  momentum: 0", "17: optim.nesterov", "delete it or raise `optim.momentum`"),
    (16, "  lr: 0.1\n  layer_decay: 0.7", "17: optim.layer_decay", "set `model.name` to timm_zoo or vit"),
    (16, "  lr: 0.1\n  gamma: 0.2", "17: optim.gamma", "set `optim.schedule` to step"),
    (16, "  lr: 0.1\n  schedule: step\n  milestones: [0.7, 0.5]", "18: optim.milestones", "increasing fractions"),
    (16, "  lr: 0.1\n  schedule: step\n  milestones: [0.7, 1]", "18: optim.milestones[1]", "should be less than 1"),
    (16, "  lr: 0.1\n  schedule: constant\n  min_lr_ratio: 0.1", "18: optim.min_lr_ratio", "to cosine or linear"),
    (10, "model:\n  pretrained: true", "11: model.pretrained", "use `model.name: timm_zoo`"),
    (18, "  epochs: 2\n  precision: fp16\n  on_nonfinite: skip", "20: train.on_nonfinite", "set `train.precision`"),
    (18, "  epochs: 2\n  max_skipped: 3", "19: train.max_skipped", "no effect, since `train.on_nonfinite` is stop"),
]  # fmt: skip


def problems_of(path: Path, *overrides: str) -> list[str]:
    """The problems of a recipe without the path of its file."""
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return [problem.removeprefix(f"{path}:") for problem in caught.value.problems]


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "sample.yaml"
    path.write_text("\n".join(LINES), encoding="utf-8")
    return path


@pytest.mark.parametrize(("line", "text", "where", "fix"), BAD_LINES, ids=[f"{n}-{t}"[:40] for n, t, *_ in BAD_LINES])
def test_one_mistake_is_answered_with_one_message(
    recipe_file: Path, line: int, text: str, where: str | None, fix: str | None
) -> None:
    recipe_file.write_text("\n".join([*LINES[: line - 1], text, *LINES[line:]]), encoding="utf-8")
    if where is None or fix is None:  # a neighbour of a mistake that is none
        load_recipe(recipe_file)
        return
    problems = problems_of(recipe_file)
    assert len(problems) == 1, problems
    assert problems[0].startswith(f"{where}: "), problems
    assert fix in problems[0]


def test_all_problems_come_at_once_in_the_order_of_the_file(recipe_file: Path) -> None:
    edited = dict(enumerate(LINES, 1)) | {
        2: "seed: -1",
        9: "    flips: true\n    randaugment_magnitude: 3",  # a contradiction, found although other keys are wrong
        11: "  name: resnett",
        16: "  lr: abc\n  lr: 3",
        19: "  global_batch: 64\n  steps: 3",
    }
    recipe_file.write_text("\n".join(edited.values()), encoding="utf-8")
    problems = problems_of(recipe_file, "eval.batch=0", "log.every=3")
    starts = [problem.split(": ")[:2] for problem in problems]
    assert starts == [
        ["2", "seed"],
        ["9", "data.augment.flips"],
        ["10", "data.augment.randaugment_magnitude"],
        ["12", "model.name"],
        ["17", "optim.lr"],
        ["18", "optim.lr"],
        ["22", "train.steps"],
        ["override", "eval.batch"],
        ["override", "log.every"],
    ]


def test_a_wrong_field_brings_no_consequences_along(recipe_file: Path) -> None:
    problems = problems_of(
        recipe_file, "train.epochs=-1", "model.name=timm_zoo", "model.args={arch: vit_tiny_patch16_225}"
    )
    assert problems == [
        "override: train.epochs: Input should be greater than 0, found -1",
        "override: model.args.arch: timm has no architecture `vit_tiny_patch16_225`"
        " (did you mean `vit_tiny_patch16_224`?)",
    ]


@pytest.mark.parametrize(
    ("arch", "fix"),
    [
        ("vit_tiny_patch16_224", None),
        ("vit_tiny_patch16_224.augreg_in21k", None),
        ("vit_huge_patch14_clip_quickgelu_224.dfn5b", None),  # a tag that timm puts together by code
        ("tv_resnet50", None),  # renamed since
        ("vit_tiny_patch16_224.augreg_in22k", "has no weights tagged `augreg_in22k` (did you mean `augreg_in21k`?)"),
        ("hf_hub:timm/vit_tiny", "timm has no architecture"),
    ],
)
def test_timm_names_are_known_without_timm(recipe_file: Path, arch: str, fix: str | None) -> None:
    overrides = ("model.name=timm_zoo", f"model.args={{arch: '{arch}'}}")
    if fix is None:
        assert load_recipe(recipe_file, overrides).model.args == {"arch": arch}
    else:
        assert fix in problems_of(recipe_file, *overrides)[0]


def test_a_required_argument(recipe_file: Path) -> None:
    assert problems_of(recipe_file, "model.name=timm_zoo", "model.args={}") == [
        "override: model.args.arch: is missing; `timm_zoo` needs it"
    ]


def test_mixing_needs_even_batches(recipe_file: Path) -> None:
    problems = problems_of(recipe_file, "data.augment.cutmix_alpha=1", "train.global_batch=63")
    assert problems == [
        "override: train.global_batch: 63 is odd, and `data.augment.cutmix_alpha` mixes pictures in pairs; use 64"
    ]
