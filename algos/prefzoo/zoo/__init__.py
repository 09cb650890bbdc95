"""One file an algorithm. None imports another; none imports torch before it trains."""
