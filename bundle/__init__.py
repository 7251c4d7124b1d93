"""What ships: the manifest's schema, reading that verifies, writing that is atomic."""

from .manifest import Manifest
from .reader import Bundle
from .writer import Draft, check_replaceable, write_bundle, write_bundles

__all__ = ["Bundle", "Draft", "Manifest", "check_replaceable", "write_bundle", "write_bundles"]
