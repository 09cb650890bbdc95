"""Base models, adapters, sampling, log-probabilities, saving and loading."""
