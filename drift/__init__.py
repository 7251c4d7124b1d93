"""What a conversion cost: metrics and the gate."""
