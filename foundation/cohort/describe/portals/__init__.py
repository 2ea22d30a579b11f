"""One file per portal; importing this package makes them known."""

from foundation.registry import import_folder

import_folder(__name__, list(__path__))
