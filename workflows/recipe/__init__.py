"""Stages that make a classifier smaller, one after the other, each with its cost and its gain."""
