"""What each stage of a comparison does."""
