"""One file per way to join embeddings; importing this package registers them all."""

from foundation.registry import import_folder

import_folder(__name__, list(__path__))
