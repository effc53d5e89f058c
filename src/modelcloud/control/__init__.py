"""The control plane: it decides and records, and never carries a prediction."""
