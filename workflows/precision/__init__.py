"""Which parts of a network may run in int8: what each costs, what mends it, what is left float."""
