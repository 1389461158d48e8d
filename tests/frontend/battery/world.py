from tests.frontend.battery.kit import Table

PROGRAMS = Table()
