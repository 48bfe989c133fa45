"""The lab's vCenter: the manager's API on the real wire, over a datacenter in a folder."""

from vcbproxy.lab.vcenter.server import LabServer

__all__ = ["LabServer"]
