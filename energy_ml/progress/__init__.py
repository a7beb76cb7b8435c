"""Progress of long work, visible to other processes.

What belongs here: events, their logs, and where these lie. What doesn't: drawing bars, sockets.
"""

from energy_ml.progress.log import ProgressCallback, ProgressEvent, ProgressLog
from energy_ml.progress.place import open_progress, progress_place, recent_runs

__all__ = [
    "ProgressCallback",
    "ProgressEvent",
    "ProgressLog",
    "open_progress",
    "progress_place",
    "recent_runs",
]
