"""What the API shows of a VM: its state as data objects of the schema. Pure functions of the state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from vcbproxy.lab.descriptor import ExtentKind
from vcbproxy.lab.spec import VmSpec
from vcbproxy.lab.state import DiskState, Link, SnapshotState, VmState, lun_uuid
from vcbproxy.lab.vcenter.schema import vim
from vcbproxy.lab.vmfs import Allocation
from vcbproxy.units import KiB

_Disk = vim.vm.device.VirtualDisk
_MODIFIED = datetime(2026, 1, 1, tzinfo=UTC)
_DELTA_FORMATS = {ExtentKind.COWD: "redoLogFormat", ExtentKind.SESPARSE: "seSparseFormat"}
_CONTROLLERS = {
    "ide": (vim.vm.device.VirtualIDEController, 200, "IDE"),
    "scsi": (vim.vm.device.ParaVirtualSCSIController, 1000, "SCSI controller"),
    "sata": (vim.vm.device.VirtualAHCIController, 15000, "SATA controller"),
    "nvme": (vim.vm.device.VirtualNVMEController, 31000, "NVME controller"),
}
Refs = Mapping[str, Any]


def config(vm: VmState, spec: VmSpec, datastores: Refs, snapshot: SnapshotState | None = None) -> Any:
    """The VM's configuration, live or as a snapshot froze it."""
    home = f"[{vm.datastore}] {vm.folder[1:]}"
    return vim.vm.ConfigInfo(
        changeVersion=f"{_MODIFIED:%Y-%m-%dT%H:%M:%S}.{len(vm.snapshots):06d}Z",
        modified=_MODIFIED,
        name=vm.name,
        guestFullName=spec.guest_full_name,
        guestId=spec.guest_id,
        alternateGuestName="",
        version="vmx-13",
        uuid=vm.uuid,
        instanceUuid=vm.instance_uuid,
        template=spec.template,
        managedBy=_managed_by(spec),
        firmware="bios",
        changeTrackingEnabled=vm.change_tracking,
        files=vim.vm.FileInfo(
            vmPathName=f"{home}/{vm.name}.vmx",
            snapshotDirectory=f"{home}/",
            suspendDirectory=f"{home}/",
            logDirectory=f"{home}/",
        ),
        flags=vim.vm.FlagInfo(diskUuidEnabled=False, snapshotDisabled=False, snapshotLocked=False),
        defaultPowerOps=vim.vm.DefaultPowerOpInfo(powerOffType="soft", suspendType="hard", resetType="soft"),
        hardware=vim.vm.VirtualHardware(
            numCPU=spec.cpus,
            numCoresPerSocket=1,
            memoryMB=spec.memory_mib,
            device=list(_devices(vm, datastores, snapshot)),
        ),
        extraConfig=[
            vim.option.OptionValue(key="nvram", value=f"{vm.name}.nvram"),
            vim.option.OptionValue(key="extendedConfigFile", value=f"{vm.name}.vmxf"),
            vim.option.OptionValue(key="ctkEnabled", value="TRUE" if vm.change_tracking else "FALSE"),
        ],
    )


def _managed_by(spec: VmSpec) -> Any:
    extension, _, kind = spec.managed_by.partition("/")
    return vim.ext.ManagedByInfo(extensionKey=extension, type=kind) if extension else None


def _devices(vm: VmState, datastores: Refs, snapshot: SnapshotState | None) -> Iterable[Any]:
    disks = vm.disks
    if snapshot is not None:  # as they were then: without what came later, with what was taken away
        disks = [disk for disk in [*vm.disks, *vm.taken_away] if not disk.in_snapshots or disk.node in snapshot.frozen]
    controllers = sorted({disk.node.split("-")[0] for disk in disks})
    for name in controllers:
        yield _controller(name, [disk for disk in disks if disk.node.split("-")[0] == name], vm.bus_sharing)
    for disk in disks:
        yield _disk(disk, datastores, snapshot)


def _controller(name: str, disks: list[DiskState], sharing: str) -> Any:
    kind, first_key, label = _CONTROLLERS[name.rstrip("0123456789")]
    number = int(name.lstrip("abcdefghijklmnopqrstuvwxyz"))
    controller = kind(
        key=first_key + number,
        busNumber=number,
        deviceInfo=vim.Description(label=f"{label} {number}", summary=label),
        device=[disk.device_key for disk in disks],
    )
    if isinstance(controller, vim.vm.device.VirtualSCSIController):
        controller.sharedBus = sharing
        controller.scsiCtlrUnitNumber = 7
    return controller


def _disk(disk: DiskState, datastores: Refs, snapshot: SnapshotState | None) -> Any:
    name, unit = disk.node.split("-")
    links = disk.links
    if snapshot is not None and disk.in_snapshots:
        links = _links_under(disk, snapshot.frozen[disk.node])
    backing = _backing(disk, links, datastores)
    if snapshot is not None:
        backing.changeId = snapshot.change_ids.get(disk.node)
    return _Disk(
        key=disk.device_key,
        controllerKey=_CONTROLLERS[name.rstrip("0123456789")][1] + int(name.lstrip("abcdefghijklmnopqrstuvwxyz")),
        unitNumber=int(unit),
        capacityInKB=disk.size_bytes // KiB,
        capacityInBytes=disk.size_bytes,
        deviceInfo=vim.Description(label=disk.label, summary=f"{disk.size_bytes // KiB:,} KB"),
        backing=backing,
    )


def _links_under(disk: DiskState, path: str) -> list[Link]:
    """The chain from its base to the link at a path, on the live branch or on the one aside."""
    names = [link.path for link in disk.links]
    if path in names:
        return disk.links[: names.index(path) + 1]
    aside = [link.path for link in disk.aside]
    return disk.links[: names.index(disk.aside_from) + 1] + disk.aside[: aside.index(path) + 1]


def _backing(disk: DiskState, links: list[Link], datastores: Refs) -> Any:
    """A link and, as ``parent``, those below it; hosts show deltas as flat backings that have a delta format."""
    below: Any = None
    for link in links:
        below = _one_backing(disk, link, datastores, below)
    return below


def _one_backing(disk: DiskState, link: Link, datastores: Refs, parent: Any) -> Any:
    pairs = " ".join(disk.uuid[at : at + 2] for at in range(0, 32, 2))
    datastore = link.datastore or disk.datastore
    where = {"fileName": f"[{datastore}] {link.path[1:]}", "datastore": datastores[datastore], "parent": parent}
    mode = "independent_persistent" if disk.independent else disk.mode
    if disk.raw is not None:
        return _Disk.RawDiskMappingVer1BackingInfo(
            **where,
            diskMode="independent_persistent" if disk.mapping == "physical" else mode,
            compatibilityMode=f"{disk.mapping}Mode",
            deviceName=f"vml.{lun_uuid(disk.raw.wwn)}",
            lunUuid=lun_uuid(disk.raw.wwn),
            uuid=f"{pairs[:23]}-{pairs[24:]}",
            contentId=link.cid.rjust(32, "0"),
            deltaDiskFormat=_DELTA_FORMATS.get(link.kind),
        )
    backing = _Disk.FlatVer2BackingInfo(
        **where,
        diskMode=mode,
        split=False,
        writeThrough=False,
        thinProvisioned=disk.allocation is Allocation.THIN,
        eagerlyScrub=disk.allocation is Allocation.EAGER,
        uuid=f"{pairs[:23]}-{pairs[24:]}",
        contentId=link.cid.rjust(32, "0"),
        digestEnabled=False,
        sharing="sharingMultiWriter" if disk.multi_writer else "sharingNone",
    )
    if disk.encrypted:
        backing.keyId = vim.encryption.CryptoKeyId(keyId="key-1")
    if link.kind is not ExtentKind.FLAT:
        backing.deltaDiskFormat = _DELTA_FORMATS[link.kind]
    if link.kind is ExtentKind.SESPARSE:
        backing.deltaGrainSize = 4
    return backing


def snapshots(vm: VmState, refs: Refs) -> Any:
    """The snapshot tree; None when there is none."""
    if not vm.snapshots:
        return None
    below: dict[str, list[Any]] = {}
    for snapshot in reversed(vm.snapshots):  # children come after their parents
        tree = vim.vm.SnapshotTree(
            snapshot=refs[snapshot.moref],
            vm=refs[vm.moref],
            name=snapshot.name,
            description=snapshot.description,
            id=snapshot.number,
            createTime=snapshot.created,
            state=power(on=snapshot.powered_on),
            quiesced=snapshot.quiesced,
            replaySupported=False,
            childSnapshotList=below.get(snapshot.moref, []),
        )
        below[snapshot.parent] = [tree, *below.get(snapshot.parent, [])]
    current = refs[vm.current] if vm.current else None
    return vim.vm.SnapshotInfo(currentSnapshot=current, rootSnapshotList=below[""])


def power(*, on: bool) -> str:
    """A power state."""
    return "poweredOn" if on else "poweredOff"


def runtime(vm: VmState, host: Any, connection: str) -> Any:
    """What the VM is doing."""
    return vim.vm.RuntimeInfo(
        host=host,
        connectionState=connection if vm.connected else "disconnected",
        powerState="suspended" if vm.suspended else power(on=vm.powered_on),
        faultToleranceState="notConfigured",
        toolsInstallerMounted=False,
        suspendInterval=0,
        numMksConnections=0,
        recordReplayState="inactive",
        onlineStandby=False,
        consolidationNeeded=vm.consolidation_needed,
    )


def guest(vm: VmState, spec: VmSpec) -> Any:
    """What its tools tell."""
    running = vm.running and vm.tools_running
    return vim.vm.GuestInfo(
        toolsStatus="toolsOk" if running else "toolsNotRunning",
        toolsRunningStatus="guestToolsRunning" if running else "guestToolsNotRunning",
        toolsVersionStatus2="guestToolsCurrent",
        toolsVersion="12352",
        guestId=spec.guest_id,
        guestFullName=spec.guest_full_name,
        guestFamily="linuxGuest",
        hostName=f"{vm.name}.lab" if running else None,
        ipAddress=spec.ip if running and spec.ip else None,
        guestState="running" if running else "notRunning",
    )


def summary(vm: VmState, spec: VmSpec, ref: Any, host: Any) -> Any:
    """The short of it all."""
    tools = guest(vm, spec)
    return vim.vm.Summary(
        vm=ref,
        runtime=runtime(vm, host, spec.connection),
        guest=vim.vm.Summary.GuestSummary(
            guestId=tools.guestId,
            guestFullName=tools.guestFullName,
            toolsStatus=tools.toolsStatus,
            toolsRunningStatus=tools.toolsRunningStatus,
            hostName=tools.hostName,
            ipAddress=tools.ipAddress,
        ),
        config=vim.vm.Summary.ConfigSummary(
            name=vm.name,
            template=spec.template,
            vmPathName=f"[{vm.datastore}] {vm.folder[1:]}/{vm.name}.vmx",
            memorySizeMB=spec.memory_mib,
            numCpu=spec.cpus,
            numVirtualDisks=len(vm.disks),
            uuid=vm.uuid,
            instanceUuid=vm.instance_uuid,
            guestId=spec.guest_id,
            guestFullName=spec.guest_full_name,
        ),
        storage=vim.vm.Summary.StorageSummary(
            committed=sum(disk.size_bytes for disk in vm.disks),
            uncommitted=0,
            unshared=sum(disk.size_bytes for disk in vm.disks),
            timestamp=datetime(2026, 11, 27, tzinfo=UTC),
        ),
        quickStats=vim.vm.Summary.QuickStats(guestHeartbeatStatus="green"),
        overallStatus="green",
    )


def capability() -> Any:
    """What may be done with a VM: what the lab can do."""
    able = {
        "snapshotOperationsSupported",
        "multipleSnapshotsSupported",
        "poweredOffSnapshotsSupported",
        "quiescedSnapshotsSupported",
        "changeTrackingSupported",
        "snapshotConfigSupported",
    }
    names = [found.name for found in vim.vm.Capability._GetPropertyList() if found.type is bool]  # noqa: SLF001
    return vim.vm.Capability(**{name: name in able for name in names})
