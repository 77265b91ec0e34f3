"""The hourly load forecaster: GRU against LSTM on the next hour, beside honest baselines."""
