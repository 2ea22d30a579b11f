"""Before a costly run: whether its processes find each other, how fast they are, and what goes between them."""
