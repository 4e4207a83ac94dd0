"""Create a small corpus of synthetic speech: `corpora.synthetic` as a program."""

from corpora.synthetic import main

if __name__ == "__main__":
    main()
