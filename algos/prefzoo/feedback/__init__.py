"""Where preferences and rewards come from."""
