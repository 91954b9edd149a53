"""`cifar-lab profile` on processes of which number 1 is slow to get its data."""

import os
import sys
import time

from cifar_lab.commands import profile as profile_command
from cifar_lab.data.stream import Stream

SLEEP = 0.03
real = Stream.micro_batch


def slow(self, step, m):
    time.sleep(SLEEP)
    return real(self, step, m)


if os.environ["RANK"] == "1":
    Stream.micro_batch = slow
sys.exit(profile_command.main(sys.argv[1:]))
