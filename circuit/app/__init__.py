"""The composition root: the only package that knows every layer."""

from circuit.app.circuit import Circuit
from circuit.app.home import Progress, database_url
from circuit.happenings import CaseUpdate, StreamUpdate
from circuit.machine import SystemClock, SystemIds

__all__ = ["CaseUpdate", "Circuit", "Progress", "StreamUpdate", "SystemClock", "SystemIds", "database_url"]
