"""What a comparison will take, from a short measured probe."""
