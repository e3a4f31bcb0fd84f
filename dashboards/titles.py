"""The dashboards there are, by uid and title, for links from one to another."""

OVERVIEW = ("coe-fleet-overview", "Samba-CoE / Fleet overview")
SWITCHING = ("coe-expert-switching", "Samba-CoE / Expert switching")
MEMORY = ("coe-memory-footprint", "Samba-CoE / Memory footprint")
SOCKETS = ("coe-sockets-and-links", "Samba-CoE / Sockets and links")
EMULATOR = ("coe-emulator-health", "Samba-CoE / Emulator health")
