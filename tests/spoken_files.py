"""Files in the format of SHD and SSC, written for tests."""

import h5py
import numpy as np


def write_spikes(path, size=6, classes=3, width=700):
    """An HDF5 file like those of SHD and SSC; the spikes as float64 seconds (from float16), and units."""
    random, spikes = np.random.RandomState(len(path.name)), []
    for i in range(size):
        count = 0 if i == 1 else 20
        times = np.sort(random.rand(count)).astype(np.float16)
        spikes.append((times.astype(np.float64), random.randint(0, width, count).astype(np.uint16)))
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        times = file.create_dataset("spikes/times", (size,), dtype=h5py.vlen_dtype(np.float16))
        units = file.create_dataset("spikes/units", (size,), dtype=h5py.vlen_dtype(np.uint16))
        for i, (t, u) in enumerate(spikes):
            times[i], units[i] = t.astype(np.float16), u
        file["labels"] = np.arange(size, dtype=np.uint16) % classes
        file["extra/keys"] = [f"digit {i}".encode() for i in range(classes)]
        file["extra/speaker"] = np.zeros(size, np.uint16)
    return spikes
