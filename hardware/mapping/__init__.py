"""Whether a network fits on a chip: profiles of chips, placement on their cores, what is violated, and how to make it fit."""

from eventnet.hardware.mapping.check import Placement, check
from eventnet.hardware.mapping.clustering import ClusteringReport, cluster_time_constants
from eventnet.hardware.mapping.placement import Piece
from eventnet.hardware.mapping.profiles import PROFILES, Limit, Profile, profile
from eventnet.hardware.mapping.rules import Violation

__all__ = [
    "PROFILES",
    "ClusteringReport",
    "Limit",
    "Piece",
    "Placement",
    "Profile",
    "Violation",
    "check",
    "cluster_time_constants",
    "profile",
]
