"""The processes that serve HTTP: one, or a supervisor with several workers; how they start, stop and are replaced.

``ServiceProcess`` opens the data layer, serves, and closes it, alone or as a worker. ``Supervisor`` starts workers and
replaces those that die. The workers inherit the one listening socket of the supervisor, instead of each binding its own
with SO_REUSEPORT: connections then wait in one queue, so none is lost with the worker that dies, and a port that
another program has taken is still found out.
"""

from data_layer.extras import require_extra

require_extra("service", "serving HTTP", "uvicorn", "fastapi")

from data_layer.server.listening import listen, metrics_authority, nearby_url
from data_layer.server.process import LogObserver, Observer, Role, ServiceProcess, WorkerObserver
from data_layer.server.served import Served
from data_layer.server.stopping import StoppedBeforeReady, StopRequest
from data_layer.server.supervisor import Supervisor
from data_layer.server.supervisor_link import Assignment, SupervisorLink

__all__ = [
    "Assignment",
    "LogObserver",
    "Observer",
    "Role",
    "Served",
    "ServiceProcess",
    "StopRequest",
    "StoppedBeforeReady",
    "Supervisor",
    "SupervisorLink",
    "WorkerObserver",
    "listen",
    "metrics_authority",
    "nearby_url",
]
