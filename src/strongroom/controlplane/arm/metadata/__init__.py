"""What a client reads before it signs in: where this cloud's parts are."""
