"""Notices when torch.compile compiles the same part of a network again and again."""

from collections import Counter

# For training, for evaluation, and for evaluation once more with a batch that may be of any size.
EXPECTED = 3


class Recompilations:
    """Counts them from now on: each takes up to minutes, and at a limit torch leaves the part as it is, slow."""

    def __init__(self) -> None:
        self._before, self._told = _counts(), EXPECTED

    def news(self) -> str | None:
        """One line where a part was compiled more often than is expected and was told; no device waits for it."""
        count = max((_counts() - self._before).values(), default=0)
        if count <= self._told:
            return None
        self._told = count
        return (
            f"torch.compile has compiled a part of the network {count} times; up to {EXPECTED} are expected "
            "(TORCH_LOGS=recompiles names the reasons, train.compile=false does without)"
        )


def _counts() -> Counter[object]:
    """How often each frame of Python was compiled in this process. Private to torch (2.11 to 2.15)."""
    from torch._dynamo import convert_frame  # loads the compiler

    return Counter(convert_frame.FRAME_COMPILE_COUNTER)
