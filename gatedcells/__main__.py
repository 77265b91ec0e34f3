"""``python -m gatedcells ...``: the command line of the interpreter at hand."""

from gatedcells.cli import main

if __name__ == "__main__":
    main(prog_name="gatedcells")
