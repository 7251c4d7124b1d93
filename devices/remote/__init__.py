"""Runs edgecls on devices: over SSH, on a virtual Pi of this machine, or here."""

from .address import HERE, LocalTarget, SshTarget, Target, find_targets
from .answers import Answers, ask
from .check import verify_there
from .fleet import Outcome, on_each, worst
from .install import clear, install
from .push import Image, push_bundle
from .session import Session, Tally

__all__ = [
    "HERE",
    "Answers",
    "Image",
    "LocalTarget",
    "Outcome",
    "Session",
    "SshTarget",
    "Tally",
    "Target",
    "ask",
    "clear",
    "find_targets",
    "install",
    "on_each",
    "push_bundle",
    "verify_there",
    "worst",
]
