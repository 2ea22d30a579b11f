"""Files and folders that are whole, known by their hash, and held by one process."""
