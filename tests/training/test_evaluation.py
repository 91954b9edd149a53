"""A metric counts each sample exactly once, however the split is cut into batches and dealt to processes."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from support.runs import train
from support.small import small, with_batch_norm

from cifar_lab.data.stream import EvalStream
from cifar_lab.recipe import parse_recipe
from cifar_lab.recipe.schedule import Schedule
from cifar_lab.training.evaluation import evaluate, views

BATCHES = (1, 7, 59, 60, 64)  # 60 test pictures: whole batches, one sample in the last, less than one batch


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """A model that is neither right nor wrong everywhere, and whose moving average differs from its weights."""
    recipe = small(train__epochs=4, train__ema_decay=0.9, optim__lr=3e-3)
    return train(recipe, tmp_path_factory.mktemp("evaluation") / "run")


@pytest.fixture(scope="module")
def by_hand(session):
    """Logits (60, 10) of the test pictures and of their mirror images, one at a time, with the average's weights."""
    module, p = session.engine.module, session.preparation
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (p.mean, p.std))
    with torch.no_grad():
        live = {name: t.clone() for name, t in module.named_parameters()}
        for name, average in session.engine.named_state("ema"):
            module.get_parameter(name).copy_(average)
        module.eval()
        pictures = [(picture.float() / 255 - mean) / std for picture in session.splits.test.images]
        logits = [torch.cat([module(x[None]) for x in xs]) for xs in (pictures, [x.flip(-1) for x in pictures])]
        module.train()
        for name, tensor in live.items():
            module.get_parameter(name).copy_(tensor)
    return logits


def stream(session, batch, **ranks):
    return EvalStream(session.splits.test, session.preparation, batch=batch, device=torch.device("cpu"), **ranks)


def measured(session, pictures, **how):
    """What training does to measure a split."""
    session.engine.average_buffers()
    with session.engine.use_ema():
        return evaluate(session.engine.predict, session.world, pictures, **how)


@pytest.mark.parametrize("batch", BATCHES)
def test_any_batch_equals_a_plain_loop(session, by_hand, batch):
    logits, labels = by_hand[0], session.splits.test.labels
    correct = int((logits.argmax(1) == labels).sum())
    assert 0 < correct < 60
    found = measured(session, stream(session, batch), keep=True)
    assert found.count == 60
    assert found.accuracy == correct / 60
    assert found.loss == pytest.approx(float(F.cross_entropy(logits.double(), labels)), rel=1e-6)
    assert torch.equal(found.predictions.predictions, logits.argmax(1))
    torch.testing.assert_close(found.predictions.confidences, logits.softmax(1).amax(1), rtol=1e-5, atol=1e-6)


def test_the_average_stands_in_only_meanwhile(session, by_hand):
    before = {name: t.clone() for name, t in session.engine.named_state("weights")}
    found = measured(session, stream(session, 60))
    assert all(torch.equal(before[name], t) for name, t in session.engine.named_state("weights"))
    session.engine.use_ema, use_ema = torch.no_grad, session.engine.use_ema
    live = measured(session, stream(session, 60))
    session.engine.use_ema = use_ema
    assert live.loss != pytest.approx(found.loss, rel=1e-6)


def test_padding_never_counts(session):
    class Poisoned:
        """The same batches with padding that would show in any sum."""

        def __iter__(self):
            for batch in stream(session, 25):
                images, labels = batch.images.clone(), batch.labels.clone()
                images[batch.weight == 0] = float("nan")
                labels[batch.weight == 0] = 0  # what argmax of NaN answers
                yield dataclasses.replace(batch, images=images, labels=labels)

    expected = measured(session, stream(session, 25), keep=True)
    found = measured(session, Poisoned(), keep=True)
    assert (found.loss, found.accuracy, found.count) == (expected.loss, expected.accuracy, 60)
    for name, tensor in vars(expected.predictions).items():
        assert torch.equal(getattr(found.predictions, name), tensor)


@pytest.mark.parametrize("batch", [7, 40])
def test_ranks_share_the_samples(session, batch):
    whole = measured(session, stream(session, batch), keep=True)
    parts = [measured(session, stream(session, batch, rank=rank, world_size=2), keep=True) for rank in range(2)]
    assert sum(part.count for part in parts) == 60
    assert sum(part.accuracy * part.count for part in parts) == pytest.approx(whole.accuracy * 60)
    assert sum(part.loss * part.count for part in parts) == pytest.approx(whole.loss * 60, rel=1e-6)
    ids = torch.cat([part.predictions.ids for part in parts])
    assert torch.equal(ids.sort().values, whole.predictions.ids)


def test_predictions_are_in_the_order_of_ids_and_agree_with_the_accuracy(session):
    # Ids with gaps, in an order of batches that is not theirs: two ranks' batches one after the other.
    some = session.splits.test.subset(torch.arange(1, 60, 3))
    streams = [
        EvalStream(some, session.preparation, batch=3, device=torch.device("cpu"), rank=rank, world_size=2)
        for rank in (1, 0)
    ]
    found = measured(session, [batch for s in streams for batch in detached(s)], keep=True)
    kept = found.predictions
    assert torch.equal(kept.ids, some.ids)
    assert torch.equal(kept.labels, some.labels)
    assert int((kept.predictions == kept.labels).sum()) / len(some) == found.accuracy
    assert found.count == len(some) == 20
    assert ((kept.confidences > 0.1) & (kept.confidences <= 1)).all()
    assert measured(session, stream(session, 60)).predictions is None


def detached(batches):
    """Batches that stay valid after the next one."""
    return [dataclasses.replace(batch, images=batch.images.clone()) for batch in batches]


def test_tta_is_the_mean_of_a_picture_and_its_mirror_image(session, by_hand):
    mean = (by_hand[0] + by_hand[1]) / 2
    found = measured(session, stream(session, 13), tta=True, keep=True)
    assert found.loss == pytest.approx(float(F.cross_entropy(mean.double(), session.splits.test.labels)), rel=1e-6)
    assert found.accuracy == int((mean.argmax(1) == session.splits.test.labels).sum()) / 60
    assert torch.equal(found.predictions.predictions, mean.argmax(1))
    assert found.loss != pytest.approx(
        float(F.cross_entropy(by_hand[0].double(), session.splits.test.labels)), rel=1e-5
    )


def test_translated_views_of_test_time_augmentation(session):
    images = torch.randn(2, 3, 5, 5)
    assert [weight for weight, _ in views(images, False)] == [1.0]
    found = views(images, "translate")
    assert sum(weight for weight, _ in found) == 1
    assert [weight for weight, _ in found] == [0.25, 0.25, 0.125, 0.125, 0.125, 0.125]
    up, down = found[2][1], found[4][1]  # moved down and to the right, then up and to the left, mirrored at the edge
    assert torch.equal(up[..., 1:, 1:], images[..., :-1, :-1]) and torch.equal(up[..., 0, 1:], images[..., 1, :-1])
    assert torch.equal(down[..., :-1, :-1], images[..., 1:, 1:])
    assert torch.equal(found[5][1], down.flip(-1))
    losses = {tta: measured(session, stream(session, 13), tta=tta).loss for tta in (False, True, "translate")}
    assert len(set(losses.values())) == 3


def test_huge_logits_give_finite_numbers(session):
    predict = session.engine.predict
    session.engine.predict = lambda images: predict(images) * 1e30
    found = measured(session, stream(session, 7), keep=True)
    session.engine.predict = predict
    assert 0 < found.loss < float("inf")
    assert torch.isfinite(found.predictions.confidences).all()


def test_a_stop_is_asked_for_after_every_batch(session):
    asked = []
    assert measured(session, stream(session, 7), stop=lambda: asked.append(1) or len(asked) == 3) is None
    assert len(asked) == 3


@pytest.mark.parametrize(("make", "batch"), [(small, 7), (with_batch_norm, 33)])
def test_eval_batch_changes_no_metric(tmp_path, make, batch):
    """Of the validation inside a run, with the recipe's own key; with batch norm and dropout too."""
    lines = {}
    for size in (80, batch):
        run = train(make(eval__batch=size, eval__every_epochs=0.5), tmp_path / f"{size}").run_dir
        lines[size] = [line for line in run.metrics() if line["split"] == "val"]
    assert [line["count"] for line in lines[batch]] == [80, 80]
    for one, other in zip(lines[80], lines[batch], strict=True):
        assert one["accuracy"] == other["accuracy"]
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-6)


def test_evaluation_does_not_disturb_training(tmp_path):
    """Dropout's draws and batch-norm statistics are those of a run that never evaluates."""
    losses = []
    for every in (1.0, 0.1):
        model = {"name": "timm_zoo", "args": {"arch": "test_efficientnet", "drop_rate": 0.2}}
        run = train(small(model=model, eval__every_epochs=every), tmp_path / f"{every}").run_dir
        losses.append([line["loss"] for line in run.metrics() if line["split"] == "train"])
    assert losses[0] == losses[1]
    schedule = Schedule.make(parse_recipe(small(eval__every_epochs=0.1)), 320)
    assert schedule.eval_every == 2
