"""Each option of a recipe really has its effect in the loop."""

import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
import yaml
from safetensors.torch import load_file
from support.runs import opened
from support.small import small
from support.watch import norm, watched
from torch import nn

from cifar_lab.checkpoint.files import list_checkpoints
from cifar_lab.data.mixing import soft_cross_entropy
from cifar_lab.errors import UsageError
from cifar_lab.recipe import parse_recipe
from cifar_lab.runtime.engine import ema_decay_at
from cifar_lab.runtime.make import apply_options
from cifar_lab.train import main, run

PLAIN_SGD = {"name": "sgd", "lr": 0.1, "momentum": 0.0, "schedule": "constant"}
CONV = {"name": "resnet", "args": {"width": 8}}


def trained(tmp_path, name="run", **overrides):
    """Six watched steps of the small recipe."""
    settings = {"train__epochs": None, "train__steps": 6, "data__val_size": 0, "optim__warmup_epochs": 0, **overrides}
    return watched(opened(small(**settings), tmp_path / name))


def test_ema_is_the_average_of_the_weights_and_becomes_the_model(tmp_path):
    decay = 0.7
    seen = trained(tmp_path, train__ema_decay=decay, train__steps=20, optim__lr=0.01)
    average = {name: t.double() for name, t in seen.weights[0].items()}
    for step, weights in enumerate(seen.weights[1:]):
        beta = min(decay, (1 + step) / (10 + step))
        average = {name: beta * average[name] + (1 - beta) * weights[name] for name in average}
    live = seen.weights[-1]
    assert ema_decay_at(19, decay) == pytest.approx(20 / 29)
    for name, tensor in seen.session.engine.named_state("ema"):
        torch.testing.assert_close(tensor.double(), average[name], rtol=1e-4, atol=1e-6)
        assert not torch.equal(tensor, live[name])


def test_the_average_soon_forgets_the_initial_weights_and_is_a_tenth_of_the_run_old():
    share, age = [1.0], 0.0  # of the weights before step 0, and mean age in steps of what is in the average
    for step in range(1000):
        decay = ema_decay_at(step, 0.9999)
        share = [decay * old for old in share]
        age = decay * (age + 1)
    assert share[0] < 1e-12
    assert age == pytest.approx(1000 / 10, rel=0.02)
    assert ema_decay_at(0, 0.9999) == 0.1 and ema_decay_at(10**6, 0.9) == 0.9


def test_the_average_is_what_a_completed_run_leaves(tmp_path):
    recipe = small(train__ema_decay=0.9, train__epochs=None, train__steps=6, optim__warmup_epochs=0)
    run_dir = run(recipe, runs=str(tmp_path)).run_dir
    newest = list_checkpoints(run_dir.checkpoints)[-1]
    final = load_file(run_dir.path / "model.safetensors")
    (average,), (live,) = (list(newest.glob(f"{kind}-*")) for kind in ("ema", "weights"))
    average, live = load_file(average), load_file(live)
    assert final.keys() == average.keys() == live.keys()
    assert all(torch.equal(final[name], average[name]) for name in final)
    assert not any(torch.equal(final[name], live[name]) for name in final)


def test_clipping_bounds_the_update_and_not_the_reported_norm(tmp_path):
    free = trained(tmp_path, "free", optim=PLAIN_SGD)
    clipped = trained(tmp_path, "clipped", optim=PLAIN_SGD, train__grad_clip=0.2)
    loose = trained(tmp_path, "loose", optim=PLAIN_SGD, train__grad_clip=1e6)
    for step in range(6):
        assert norm(free.grads[step]) > 0.3
        assert norm(free.update(step)) == pytest.approx(0.1 * norm(free.grads[step]), rel=1e-3)
        assert norm(clipped.update(step)) == pytest.approx(0.1 * 0.2, rel=1e-3)
        assert all(torch.equal(w, loose.weights[step + 1][name]) for name, w in free.weights[step + 1].items())
    line = clipped.session.run_dir.metrics()[0]
    assert line["grad_norm"] == pytest.approx(norm(free.grads[0]), rel=1e-4)


def test_bf16_computes_coarsely_and_keeps_fine_weights(tmp_path):
    fine = trained(tmp_path, "fine", train__steps=12)
    coarse = trained(tmp_path, "coarse", train__steps=12, train__precision="bf16")
    assert coarse.losses != fine.losses
    assert coarse.losses == pytest.approx(fine.losses, rel=0.02)
    rounded = coarse.logits[0].bfloat16().float()
    assert torch.equal(coarse.logits[0], rounded)  # the classifier ran in bf16
    assert not torch.equal(fine.logits[0], fine.logits[0].bfloat16().float())
    assert {w.dtype for w in coarse.weights[-1].values()} == {torch.float32}
    assert not any(torch.equal(w, w.bfloat16().float()) for w in coarse.weights[-1].values())


@pytest.mark.parametrize("on", [True, False])
def test_channels_last_reaches_weights_and_pictures(tmp_path, on):
    seen = trained(tmp_path, model=CONV, train__channels_last=on, train__steps=1)
    convolutions = [m.weight for m in seen.session.engine.module.modules() if isinstance(m, torch.nn.Conv2d)]
    wide = [w for w in convolutions if w.shape[1] > 1 and w.shape[2] > 1]
    assert len(wide) > 10
    for tensor in [*wide, seen.images[0]]:
        assert tensor.is_contiguous(memory_format=torch.channels_last) == on
        assert tensor.is_contiguous() == (not on)


def test_channels_last_changes_no_number(tmp_path):
    losses = [trained(tmp_path, f"{on}", model=CONV, train__channels_last=on).losses for on in (True, False)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_gradient_checkpointing_computes_twice_and_gets_the_same(tmp_path):
    seen, passes = {}, {}
    for on in (False, True):
        args = {"width": 32, "depth": 2, "heads": 2, "patch_size": 4, "dropout": 0.2, "drop_path": 0.2}
        session = opened(
            small(
                model={"name": "vit", "args": args},
                train__grad_checkpointing=on,
                train__epochs=None,
                train__steps=3,
                data__val_size=0,
                optim__warmup_epochs=0,
            ),
            tmp_path / f"{on}",
        )
        calls = []
        session.engine.module.blocks[0].norm1.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        seen[on] = watched(session)
        passes[on] = len(calls)
    assert passes == {False: 3, True: 6}
    assert seen[True].losses == seen[False].losses
    for name, grad in seen[False].grads[0].items():
        assert torch.equal(seen[True].grads[0][name], grad), name


def test_gradient_checkpointing_of_a_model_without_it_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"train\.grad_checkpointing: speednet does not support it"):
        trained(tmp_path, model={"name": "speednet", "args": {"width": 8}}, train__grad_checkpointing=True)


def test_label_smoothing_is_in_the_loss(tmp_path):
    seen = trained(tmp_path, train__label_smoothing=0.3, train__steps=20, optim__lr=0.01)
    plain = []
    for logits, labels, loss in zip(seen.logits, seen.labels, seen.losses, strict=True):
        log_p = logits.log_softmax(1)
        own = log_p.gather(1, labels[:, None]).squeeze(1)
        by_hand = -(0.7 * own + 0.3 * log_p.mean(1)).mean()
        assert loss == pytest.approx(float(by_hand), rel=1e-5)
        plain.append(float(-own.mean()))
    assert max(abs(loss - other) for loss, other in zip(seen.losses, plain, strict=True)) > 0.004


def test_layer_decay_slows_early_layers(tmp_path):
    even = trained(tmp_path, "even", optim=PLAIN_SGD).update(0)
    slow = trained(tmp_path, "slow", optim={**PLAIN_SGD, "layer_decay": 0.5}).update(0)
    # Two blocks: embeddings are layer 0, blocks 1 and 2 with the last norm, the classifier 3.
    scales = {"patch_embed": 0.125, "pos_embed": 0.125, "blocks.0": 0.25, "blocks.1": 0.5, "norm": 0.5, "head": 1.0}
    for name, full in even.items():
        scale = next(scale for prefix, scale in scales.items() if name.startswith(prefix))
        torch.testing.assert_close(slow[name], scale * full, rtol=1e-2, atol=2e-7)
        assert full.abs().max() > 5e-6, name


def test_norms_are_synchronised_without_timm(monkeypatch):
    recipe = parse_recipe(small(train__sync_batchnorm=True, model=CONV))
    net, world = nn.Sequential(nn.BatchNorm2d(3)), SimpleNamespace(device=torch.device("meta"))
    monkeypatch.setitem(sys.modules, "timm.layers", None)
    assert isinstance(apply_options(net, recipe, world, "ddp")[0], nn.SyncBatchNorm)


def test_sync_batchnorm_is_refused_on_a_cpu(tmp_path, repo, capsys):
    arguments = [str(repo / "recipes" / "demo.yaml"), "--runs", str(tmp_path), "data.name=shapes"]
    arguments += ["data.args={num_train: 400, num_test: 60}", "data.val_size=0", "train.global_batch=100"]
    assert main([*arguments, "train.sync_batchnorm=true"]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert message.startswith("train.sync_batchnorm: does not work on cpu")


def test_deterministic_holds_for_its_run_only(tmp_path):
    states = []
    for name, on in (("on", True), ("off", False)):
        session = opened(small(train__deterministic=on), tmp_path / name)
        states.append(torch.are_deterministic_algorithms_enabled())
        watched(session)
    assert states == [True, False]


def test_tta_is_used_for_validation_and_test(tmp_path):
    lines = {}
    for on in (False, True):
        recipe = small(eval__tta=on, train__epochs=None, train__steps=6)
        lines[on] = {(m["split"], m["step"]): m["loss"] for m in run(recipe, runs=str(tmp_path)).run_dir.metrics()}
    assert lines[True].keys() == lines[False].keys()
    differing = {key[0] for key in lines[True] if lines[True][key] != lines[False][key]}
    assert differing == {"val", "test"}


def test_compile_is_in_place(tmp_path):
    """Nothing is compiled before the first forward pass, so this costs nothing."""
    for on in (False, True):
        session = opened(small(train__compile=on), tmp_path / f"{on}")
        assert (session.engine.module._compiled_call_impl is not None) == on
        assert not any("_orig_mod" in name for name, _ in session.engine.named_state("weights"))
        session.close()


def test_cuda_graphs_end_before_the_first_step(tmp_path):
    with pytest.raises(
        UsageError, match=r"train.compile: does not work on cpu.*\n.*on gradient accumulation.*set it to"
    ):
        opened(small(train__compile="reduce-overhead", train__micro_batch=8), tmp_path / "run")


def test_muon_on_a_net_of_matrices_ends_before_the_first_step(tmp_path, capsys):
    path = tmp_path / "muon.yaml"
    path.write_text(yaml.safe_dump(small(optim={"name": "muon", "lr": 0.1})))
    assert main([str(path), "--runs", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "of the parameters that VisionTransformer trains, less than half: use adamw or sgd" in error
    assert "Traceback" not in error and not list(tmp_path.glob("small/*/metrics.jsonl"))


def test_mixed_pictures_come_with_mixed_labels(tmp_path):
    seen = trained(tmp_path, data__augment__mixup_alpha=0.4, data__augment__cutmix_alpha=1.0)
    plain = trained(tmp_path, "plain")
    shares = torch.stack(seen.own_weight)
    assert 0 < shares.min() < 0.3 < 0.7 < shares.max() <= 1  # a box may lie on less than a pixel
    for step, own in enumerate(seen.own_weight):
        assert torch.equal(own[::2], own[1::2])  # partners give each other the same share
        log_p, labels = seen.logits[step].log_softmax(1), seen.labels[step]
        partners = labels.view(-1, 2).flip(1).reshape(-1)
        mine, other = (log_p.gather(1, which[:, None]).squeeze(1) for which in (labels, partners))
        assert seen.losses[step] == pytest.approx(float(-(own * mine + (1 - own) * other).mean()), rel=1e-5)
        assert torch.equal(labels, plain.labels[step])
        # Mixup keeps the sum of a pair, and so does exchanging a box.
        pair, unmixed = (x.images[step].unflatten(0, (-1, 2)) for x in (seen, plain))
        torch.testing.assert_close(pair.sum(1), unmixed.sum(1), rtol=0, atol=1e-4)
        changed = (pair - unmixed).abs().flatten(2).amax(2).amax(1) > 1e-3
        assert torch.equal(changed, own[::2] < 1)
    assert soft_cross_entropy(seen.logits[0], seen.labels[0]) == F.cross_entropy(seen.logits[0], seen.labels[0])


def test_warm_up_scales_the_first_updates(tmp_path):
    seen = trained(tmp_path, optim={**PLAIN_SGD, "warmup_epochs": 4 / 25})  # four of the 25 steps of an epoch
    assert seen.lr == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])
    for step, lr in enumerate(seen.lr):
        assert norm(seen.update(step)) == pytest.approx(lr * norm(seen.grads[step]), rel=2e-3)
    assert [m["lr"] for m in seen.session.run_dir.metrics()] == pytest.approx(seen.lr)
