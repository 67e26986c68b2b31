"""The simulated Calendly.

https://developer.calendly.com/api-docs/
"""

from ingest.simulator.calendly.api import CalendlyApi
from ingest.simulator.calendly.webhooks import SimulatedCalendly
from ingest.simulator.vendor import SimulatedVendor

VENDOR = SimulatedVendor(SimulatedCalendly, CalendlyApi)
