"""Experiment trackers, which show the curves of many runs side by side: they get the rows of a run's log, and samples.

`Tracker` is the interface, `tracking` opens those that a run names. Their packages are optional, imported only then.
"""

from infdiff.trackers.group import LOGS, TRACKERS, Trackers, require_trackers, tracking

__all__ = ["LOGS", "TRACKERS", "Trackers", "require_trackers", "tracking"]
