"""GRU and LSTM kernels in Triton; see docs/kernels.md. Importing this imports nothing else."""
