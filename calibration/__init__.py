"""Observers, ranges and Q/DQ placement."""
