"""One file per tower; importing this package registers them all."""

from foundation.registry import import_folder

import_folder(__name__, list(__path__))
