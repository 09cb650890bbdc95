"""What Weights & Biases and other trackers are told."""
