"""What kind of manager the server says it is: a vCenter Server, or an ESXi host, alone or in a vCenter's hands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vcbproxy.lab.vcenter.release import NEWEST, Release
from vcbproxy.lab.vcenter.rest import LEGACY, MODERN
from vcbproxy.lab.vcenter.schema import vim


@dataclass(frozen=True, slots=True)
class Persona:
    """A manager's manners.

    Attributes:
        managed_by: the address of the vCenter that a host is managed by.
    """

    esxi: bool = False
    release: Release = NEWEST
    managed_by: str = ""

    def about(self, instance_uuid: str) -> Any:
        """What it says of itself; a host has no identity of its own."""
        name = "VMware ESXi" if self.esxi else "VMware vCenter Server"
        return vim.AboutInfo(
            name=name,
            fullName=f"{name} {self.release.version} (vcbproxy lab)",
            vendor="VMware, Inc.",
            version=self.release.version,
            build="1",
            localeVersion="INTL",
            localeBuild="000",
            osType="vmnix-x86" if self.esxi else "linux-x64",
            productLineId="embeddedEsx" if self.esxi else "vpx",
            apiType="HostAgent" if self.esxi else "VirtualCenter",
            apiVersion=self.release.api_version,
            instanceUuid=None if self.esxi else instance_uuid,
            licenseProductName="VMware ESX Server" if self.esxi else "VMware VirtualCenter Server",
            licenseProductVersion=self.release.version[:3],
        )

    @property
    def rest_dialects(self) -> set[str]:
        """What the REST API is spoken in: a host has none, and the newer came with 7.0 U2."""
        if self.esxi:
            return set()
        modern = self.release.api_version >= "7.0.2"
        return {LEGACY, MODERN} if modern else {LEGACY}

    def host_summary(self, ref: Any, name: str) -> Any:
        """A host, in short."""
        return vim.host.Summary(
            host=ref,
            config=vim.host.Summary.ConfigSummary(
                name=name, port=443, vmotionEnabled=False, faultToleranceEnabled=False
            ),
            quickStats=vim.host.Summary.QuickStats(),
            overallStatus="green",
            rebootRequired=False,
            managementServerIp=self.managed_by or None,
        )


VCENTER = Persona()
