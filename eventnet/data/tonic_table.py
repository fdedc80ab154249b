"""What is known of each data set of tonic: where its files lie, how it is split, how long it lasts."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

__all__ = ["NOT_CLASSES", "TONIC_SETS", "Part", "TonicSet"]


@dataclass(frozen=True)
class Part:
    """One part (training, test) of a set.

    ``files`` are patterns below the set's folder, each of which some file must match; ``archives`` what they
    may be unpacked from; ``arguments`` what tonic's class takes to open this part; ``complete`` the official
    number of samples.
    """

    files: tuple[str, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    archives: tuple[str, ...] = ()
    complete: int | None = None


@dataclass(frozen=True)
class TonicSet:
    """One set: ``duration`` in seconds is the default, ``from_first`` counts times from the first event.

    ``packed_below``: with fewer samples than this in all, the set is packed in memory; otherwise it is read
    lazily. ``targets`` gives the labels of an opened tonic dataset without reading the recordings.
    """

    class_name: str
    duration: float
    num_classes: int
    parts: Mapping[str, Part]
    aliases: tuple[str, ...] = ()
    from_first: bool = False
    packed_below: int = 0
    validation_fraction: float = 0.1
    sensor_size: Callable[[Any], tuple[int, int, int]] = lambda dataset: dataset.sensor_size
    targets: Callable[[Any], Any] = lambda dataset: dataset.targets


def _h5_labels(dataset: Any) -> Any:
    import h5py

    with h5py.File(os.path.join(dataset.location_on_system, dataset.data_filename), "r") as file:
        return file["labels"][()].astype(int)


def _spoken_digits(dataset: Any) -> Any:
    return [dataset.class_map[sample.split("-")[-1]] for sample in dataset._samples]


def _halves(
    train: str, test: str, *, archives: tuple[str, str] | None = None, complete: tuple[int, int]
) -> dict[str, Part]:
    """Training and test part that tonic's class tells apart by ``train=True`` and ``False``."""
    packed = [(name,) for name in archives] if archives else [(), ()]
    return {
        "train": Part((train,), {"train": True}, packed[0], complete[0]),
        "test": Part((test,), {"train": False}, packed[1], complete[1]),
    }


def _h5_part(name: str, split: Mapping[str, Any], complete: int) -> Part:
    return Part((f"{name}.h5",), split, (f"{name}.h5.zip",), complete)


def _idx_part(stem: str, train: bool, complete: int) -> Part:
    files = (f"{stem}-images-idx3-ubyte", f"{stem}-labels-idx1-ubyte")
    return Part(files, {"train": train}, tuple(f"{name}.gz" for name in files), complete)


TONIC_SETS: Mapping[str, TonicSet] = MappingProxyType(
    {
        "asldvs": TonicSet(
            "ASLDVS",
            0.2,
            26,
            {"all": Part(("[a-z]/*.mat",), complete=100800)},
            aliases=("asl_dvs",),
            from_first=True,
        ),
        "cifar10dvs": TonicSet("CIFAR10DVS", 1.3, 10, {"all": Part(("*/*.aedat4",), complete=10000)}, from_first=True),
        "dvsgesture": TonicSet(
            "DVSGesture",
            6.0,
            11,
            _halves(
                "ibmGestureTrain/user*/*.npy",
                "ibmGestureTest/user*/*.npy",
                archives=("ibmGestureTrain.tar.gz", "ibmGestureTest.tar.gz"),
                complete=(1077, 264),
            ),
            from_first=True,
        ),
        "dvslip": TonicSet(
            "DVSLip",
            2.0,
            100,
            _halves("DVS-Lip/train/*/*.npy", "DVS-Lip/test/*/*.npy", complete=(14896, 4975)),
            from_first=True,
        ),
        "ncaltech101": TonicSet(
            "NCALTECH101",
            0.34,
            101,
            {"all": Part(("Caltech101/*/*.bin",), complete=8709)},
            sensor_size=lambda dataset: (240, 180, 2),  # the largest recording; tonic gives none
        ),
        "nmnist": TonicSet(
            "NMNIST",
            0.34,
            10,
            _halves("Train/*/*.bin", "Test/*/*.bin", archives=("train.zip", "test.zip"), complete=(60000, 10000)),
            packed_below=20000,
        ),
        "ntidigits18": TonicSet(
            "NTIDIGITS18",
            2.5,
            11,
            {
                "train": Part(("n-tidigits.hdf5",), {"train": True, "single_digits": True}),
                "test": Part(("n-tidigits.hdf5",), {"train": False, "single_digits": True}),
            },
            aliases=("n-tidigits",),
            targets=_spoken_digits,
        ),
        "pokerdvs": TonicSet(
            "POKERDVS",
            0.04,
            4,
            _halves(
                "pips_train/*/*.npy",
                "pips_test/*/*.npy",
                archives=("pips_train.tar.gz", "pips_test.tar.gz"),
                complete=(48, 20),
            ),
            packed_below=1000,
            validation_fraction=0.25,
        ),
        "shd": TonicSet(
            "SHD",
            1.4,
            20,
            {
                "train": _h5_part("shd_train", {"train": True}, 8156),
                "test": _h5_part("shd_test", {"train": False}, 2264),
            },
            aliases=("hsd",),
            targets=_h5_labels,
        ),
        "smnist": TonicSet(
            "SMNIST",
            1.6,
            10,
            {"train": _idx_part("train", True, 60000), "test": _idx_part("t10k", False, 10000)},
            aliases=("mnist",),
            # tonic announces num_neurons units, but numbers them up to num_neurons inclusive.
            sensor_size=lambda dataset: (dataset.sensor_size[0] + 1, 1, 1),
            targets=lambda dataset: dataset.label_data,
        ),
        "ssc": TonicSet(
            "SSC",
            1.0,
            35,
            {
                "train": _h5_part("ssc_train", {"split": "train"}, 75466),
                "validation": _h5_part("ssc_valid", {"split": "valid"}, 9981),
                "test": _h5_part("ssc_test", {"split": "test"}, 20382),
            },
            aliases=("hsd",),
            targets=_h5_labels,
        ),
    }
)

# tonic's other sets: recordings without a class, which no (events, label) split can be made of.
NOT_CLASSES: Mapping[str, str] = MappingProxyType(
    {
        "davisdata": "camera poses",
        "dsec": "disparity and optical flow",
        "ebssa": "bounding boxes of objects in space",
        "mvsec": "depth and camera poses",
        "nerdd": "bounding boxes of drones",
        "threeeteyetracking": "pupil positions",
        "tumvie": "camera poses",
        "vpr": "places along a road",
    }
)
