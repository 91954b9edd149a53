"""What torch.compile compiles anew is counted, and told once where it is more than a network needs."""

from types import MethodType

from support.runs import closed, opened
from support.small import small

from cifar_lab.training.loop import fit

TOLD = "torch.compile has compiled a part of the network"


def train_compiled(path, change_every=None):
    """Train with graphs but no machine code, which takes a minute; `change_every` so many steps outdates them."""
    session = opened(small(train__compile=True, train__epochs=None, train__steps=12, log__every_steps=2), path)
    module = session.engine.module
    module.factor, forward = 1, type(module).forward
    module.forward = MethodType(lambda self, images: forward(self, images) * self.factor, module)
    module.compile(backend="eager")
    update = session.progress.update

    def change(step, **values):
        if change_every and step % change_every == 0:
            module.factor = step
        update(step, **values)

    session.progress.update = change
    assert fit(session)
    closed(session)


def test_training_and_evaluation_are_what_is_expected(tmp_path, capsys):
    train_compiled(tmp_path / "run")
    assert TOLD not in capsys.readouterr().err


def test_more_are_told_with_their_number(tmp_path, capsys):
    train_compiled(tmp_path / "run", change_every=2)
    told = [line for line in capsys.readouterr().err.splitlines() if TOLD in line]
    assert f"{TOLD} 4 times; up to 3 are expected" in told[0] and "TORCH_LOGS=recompiles" in told[0]
    assert len(told) == len(set(told)) == 3  # at 4, 5 and 6: a value for each two steps, and evaluation
