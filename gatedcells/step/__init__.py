"""``gatedcells step``: a cell's gates on real numbers, one step after the other, in a terminal."""
