"""The commands of ``coe``."""

from __future__ import annotations

GROUP = "coe.commands"  # of entry points: commands of packages that are installed beside, as samda
COMMANDS = {  # name -> where it is: a command imports what it needs, and no other does
    "run": "cli_serve:run",
    "compare": "cli_serve:compare",
    "sweep": "cli_sweep:sweep",
    "plan": "cli_plan:plan",
    "generate": "cli_generate:generate_command",
    "estimate": "cli_model:estimate",
    "kernels": "cli_model:kernels",
    "footprint": "cli_ask:footprint",
    "switching": "cli_switching:switching",
    "sensitivity": "cli_sensitivity:sensitivity",
    "reproduce": "cli_ask:reproduce",
    "router": "cli_router:router",
    "machines": "cli_ask:machines",
    "submit": "cli_jobs:submit",
    "fetch": "cli_jobs:fetch_command",
}
