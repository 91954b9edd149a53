"""What is counted of a model, and that a run does not depend on it."""

from support.small import small

from cifar_lab.models.size import model_size
from cifar_lab.planning.activations import footprint
from cifar_lab.recipe.schema import Model
from cifar_lab.train import run
from cifar_lab.training import finish


def test_attention_pooling_is_counted_too() -> None:
    """A query of its own without a gradient function once stopped the counter."""
    pooled = Model(name="timm_zoo", args={"arch": "vit_base_patch16_siglip_224"})
    size = model_size(pooled, 10, 32)
    found = footprint(pooled, 10, 32, "fp32")
    assert (found.num_parameters, found.flops_per_image) == (size.num_parameters, size.flops_per_image)
    assert size.flops_per_image > 2 * 4 * 80e6  # four patches


def test_a_model_that_cannot_be_counted_completes(tmp_path, monkeypatch):
    def needs_values(*_):
        raise RuntimeError("Cannot copy out of meta tensor")

    monkeypatch.setattr(finish, "model_size", needs_values)
    done = run(small(train__epochs=None, train__steps=1, optim__warmup_epochs=0), run_dir=str(tmp_path / "run"))
    assert done.completed
    summary = done.run_dir.summary()
    assert (summary["num_parameters"], summary["flops_per_image"]) == (None, None)
    assert summary["test"]["accuracy"] >= 0
