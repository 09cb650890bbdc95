"""Rewards: trained, by path, functions, judges, sums and ensembles of them."""
