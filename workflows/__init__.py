"""The only room that joins stages."""
