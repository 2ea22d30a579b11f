"""One file per way in which regions are drawn on images; importing this package registers them all."""

from foundation.registry import import_folder

import_folder(__name__, list(__path__))
