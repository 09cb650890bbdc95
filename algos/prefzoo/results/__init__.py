"""What a comparison found: schema, collection, statistics, warnings."""
