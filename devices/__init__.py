"""What a device can tell of itself, and devices elsewhere: over SSH, or emulated here."""
