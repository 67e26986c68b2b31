"""The simulated Appointedd.

https://developers.appointedd.com/
"""

from ingest.simulator.appointedd.api import AppointeddApi
from ingest.simulator.appointedd.webhooks import SimulatedAppointedd
from ingest.simulator.vendor import SimulatedVendor

VENDOR = SimulatedVendor(SimulatedAppointedd, AppointeddApi)
