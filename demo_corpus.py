"""Create a small corpus of synthetic speech: `corpora.synthetic` as a program."""

import cli

if __name__ == "__main__":
    cli.interrupts_in_one_line()

from corpora.synthetic import main

if __name__ == "__main__":
    main()
