"""A run as a folder that travels: what predicts, a card of what was recorded, and checks before it may leave."""
