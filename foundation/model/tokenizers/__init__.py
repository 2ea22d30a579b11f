"""One file per way to turn omics features into tokens; importing this package registers them all."""

from foundation.registry import import_folder

import_folder(__name__, list(__path__))
