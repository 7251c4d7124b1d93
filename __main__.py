"""``python -m edgecls``."""

from .cli.main import main

if __name__ == "__main__":
    main()
