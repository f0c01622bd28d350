"""`python -m audiomcq` and, under a launcher, `accelerate launch -m audiomcq`: the commands of `audiomcq`."""

from audiomcq.cli import main

if __name__ == "__main__":
    main()
