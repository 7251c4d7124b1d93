"""Runs edgecls on other devices: over SSH, or on a virtual Pi of this machine."""

from .address import SshTarget, Target, VirtualTarget, find_targets
from .answers import Answers, ask
from .fleet import Outcome, on_each, worst
from .install import clear, install
from .push import Image, push_bundle
from .session import Session, Tally

__all__ = [
    "Answers",
    "Image",
    "Outcome",
    "Session",
    "SshTarget",
    "Tally",
    "Target",
    "VirtualTarget",
    "ask",
    "clear",
    "find_targets",
    "install",
    "on_each",
    "push_bundle",
    "worst",
]
