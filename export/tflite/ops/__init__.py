"""One lowering per operator."""
