"""The next epoch's draws, made by a thread: the same ones, none too many, and no error is lost."""

import threading

import pytest
import torch
from support.pictures import make_stream, random_pictures, whole_batch

AUGMENT = {
    "crop_padding": 4,
    "flip": "alternating",
    "mixup_alpha": 0.4,
    "cutmix_alpha": 1.0,
    "randaugment_ops": 2,
    "erase_prob": 0.5,
}
EPOCHS, STEPS = 3, 4  # of 48 pictures


def threads():
    """Those that draw."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("draws")]


def drawn_in(stream):
    """Epochs that `stream` draws from now on, and whether the main thread did it."""
    seen, draw = [], stream._drawn._draw

    def note(epoch):
        seen.append((epoch, threading.current_thread() is threading.main_thread()))
        return draw(epoch)

    stream._drawn._draw = note
    return seen


def test_batches_are_those_without_a_thread():
    pictures = random_pictures(48)
    plain, ahead = make_stream(pictures, AUGMENT), make_stream(pictures, AUGMENT, num_epochs=EPOCHS)
    seen = drawn_in(ahead)
    for step in range(EPOCHS * STEPS):
        for one, other in zip(whole_batch(plain, step), whole_batch(ahead, step), strict=True):
            assert torch.equal(one, other)
    assert seen == [(0, True), (1, False), (2, False)]  # and no fourth: the run has three


def test_a_run_that_begins_elsewhere_takes_what_it_needs():
    """The sheet of augmented pictures shows step 0, whatever the step that a run goes on from."""
    pictures = random_pictures(48)
    stream = make_stream(pictures, AUGMENT, num_epochs=9)
    seen = drawn_in(stream)
    stream.micro_batch(0, 0)
    batch = stream.micro_batch(6 * STEPS, 0)
    assert torch.equal(batch.images, make_stream(pictures, AUGMENT).micro_batch(6 * STEPS, 0).images)
    stream.micro_batch(7 * STEPS, 0)
    for thread in threads():
        thread.join(timeout=60)
    assert sorted(seen) == [(0, True), (1, False), (6, True), (7, False), (8, False)]


def test_threads_end_with_their_work():
    stream = make_stream(random_pictures(48), AUGMENT, num_epochs=EPOCHS)
    stream.micro_batch(0, 0)
    for thread in threads():
        thread.join(timeout=60)
    assert threads() == []
    make_stream(random_pictures(48), AUGMENT).micro_batch(0, 0)
    assert threads() == []


def test_an_error_is_raised_where_the_draws_are_needed():
    stream = make_stream(random_pictures(48), AUGMENT, num_epochs=EPOCHS)
    draw = stream._drawn._draw

    def fails(epoch):
        if epoch == 1:
            raise MemoryError("no room for the draws")
        return draw(epoch)

    stream._drawn._draw = fails
    for step in range(STEPS):
        stream.micro_batch(step, 0)
    with pytest.raises(MemoryError, match="no room"):
        stream.micro_batch(STEPS, 0)
