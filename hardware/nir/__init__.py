"""NIR, the exchange format: files written and read, run step by step, and turned into eventnet's layers and back."""

from eventnet.hardware.nir.exporting import to_nir, write_nir
from eventnet.hardware.nir.files import Disagreement
from eventnet.hardware.nir.importing import Imported, from_nir
from eventnet.hardware.nir.readers import lost_by_readers
from eventnet.packages import need

__all__ = ["Disagreement", "Imported", "from_nir", "lost_by_readers", "to_nir", "write_nir"]

need("nir", "a NIR file", "pip install 'eventnet[nir]'")  # now, not in the middle of something
