"""Fused CPU kernels in C++: a whole sequence is one call, forward and backward."""
