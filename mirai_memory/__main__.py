"""``python -m mirai_memory`` is the command ``mirai-memory``."""

from mirai_memory.cli import main

if __name__ == "__main__":
    main()
