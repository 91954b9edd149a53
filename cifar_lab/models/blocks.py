"""The layers that a model repeats, which its strategies and plans take one by one."""

from collections import Counter

from torch import nn


def find_blocks(model: nn.Module) -> list[nn.Module]:
    """The layers that a model repeats: elements of its lists, of a class that occurs twice or more, with layers of
    their own; of those inside of each other the inner ones."""
    kinds = Counter(map(type, model.modules()))

    def below(module: nn.Module) -> list[nn.Module]:
        found = []
        for child in module.children():
            inner = below(child)
            repeated = isinstance(module, (nn.ModuleList, nn.Sequential)) and kinds[type(child)] > 1
            own = repeated and any(child.children()) and any(True for _ in child.parameters())
            found += inner or ([child] if own else [])
        return found

    return below(model)
