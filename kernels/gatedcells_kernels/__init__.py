"""Who computes the cells. Private to gatedcells: import that instead."""
