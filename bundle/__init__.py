"""What ships: the manifest's schema, reading that verifies, writing that is atomic."""

from .manifest import Manifest
from .reader import Bundle
from .writer import write_bundle

__all__ = ["Bundle", "Manifest", "write_bundle"]
