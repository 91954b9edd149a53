"""The nodes of a job meet at node 0 before anything is started, and each learns what keeps any of them from it.

Node 0 listens where the launcher's store will be, so that what blocks one blocks the other; the port is free again
when the meeting ends.
"""

from __future__ import annotations

from cifar_lab.cluster.meeting.hosting import host
from cifar_lab.cluster.meeting.joining import join
from cifar_lab.cluster.meeting.mesh import Answerer
from cifar_lab.cluster.meeting.terms import MEND, PROBLEM_SECONDS, Meeting, MeetingError, Offer
from cifar_lab.cluster.place import Node

__all__ = ["MEETING_SECONDS", "MEND", "Meeting", "MeetingError", "Offer", "meet"]

MEETING_SECONDS = 45.0


def meet(node: Node, offer: Offer, seconds: float = MEETING_SECONDS) -> Meeting:
    """Meet the other nodes. Raises MeetingError or PlaceError, within `seconds` and a little more, on each of them."""
    answerer = Answerer(node.token, node.rank)
    try:
        work = host if node.rank == 0 else join
        return work(node, offer, answerer.port, min(seconds, PROBLEM_SECONDS) if offer.problem else seconds)
    finally:
        answerer.close()
