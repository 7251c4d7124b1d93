"""The version, alone in a module, so that the build reads it without importing anything."""

from typing import Final

VERSION: Final = "0.1.0"
