"""One SN40L node in virtual time: pure Python and numpy, integers for time and bytes."""

from node.native import install

install()
