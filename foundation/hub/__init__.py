"""Model hubs: published folders, their hashes and addresses, and what must not leave with them."""
