"""Smaller classifiers: pruning. Module in, module out."""
