"""Triage: which stage of a pipeline a candidate's drop comes from, and which layers."""

from .explain import ExplainOptions, explain

__all__ = ["ExplainOptions", "explain"]
