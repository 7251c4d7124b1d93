"""What a device can tell of itself: doctor."""
