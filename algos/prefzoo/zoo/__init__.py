"""One file an algorithm, named like it. None imports another; none imports torch before it trains.

What families share: `pairwise` (losses on pairs), `unpaired` (on single replies), `sampled_pairs` (on pairs of the
policy's own replies), `online_bases` and `group_relative` (policy gradients), `feedback_loop` (AI feedback).
"""
