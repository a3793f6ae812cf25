"""Images that look alike to a trained network: exact search, an index of a data set, and short binary codes."""
