"""The vCenter itself: a datacenter's state as managed objects, kept true after every change.

Datacenters (group-d1) ─ DC0 ─┬─ vm ─ every VM            ─ its snapshots
                              ├─ host ─ cluster C0 ─ esx1.lab, esx2.lab, Resources
                              ├─ datastore ─ every datastore
                              └─ network
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from vcbproxy.clock import Clock
from vcbproxy.lab.datacenter import Datacenter
from vcbproxy.lab.machine import Machine
from vcbproxy.lab.moves import HOSTS
from vcbproxy.lab.spec import DatastoreSpec
from vcbproxy.lab.state import DatastoreState
from vcbproxy.lab.tracking import HONEST
from vcbproxy.lab.vcenter import crowd as crowds
from vcbproxy.lab.vcenter import hostluns, render
from vcbproxy.lab.vcenter.faults import Faults
from vcbproxy.lab.vcenter.inventory import Inventory, Managed
from vcbproxy.lab.vcenter.permissions import Permissions
from vcbproxy.lab.vcenter.persona import VCENTER, Persona
from vcbproxy.lab.vcenter.properties import OWN_COLLECTOR, Collectors
from vcbproxy.lab.vcenter.rest import Rest
from vcbproxy.lab.vcenter.schema import vim, vmodl
from vcbproxy.lab.vcenter.sessions import Sessions
from vcbproxy.lab.vcenter.tasks import Tasks
from vcbproxy.lab.vcenter.tree import FIRST, POOL, ROOT, Tree
from vcbproxy.units import MiB, TiB

_BLOCK_MIB = 1
_VMFS_VERSIONS = {3: "3.31", 5: "5.81", 6: "6.82"}
_NFS_HOST = "nfs.lab"


def _nothing() -> None:
    """What a task does that does nothing."""


class Centre:
    """Everything a request may reach."""

    def __init__(self, datacenter: Datacenter, clock: Clock, persona: Persona = VCENTER) -> None:
        spec = datacenter.state.spec
        self._persona = persona
        self.datacenter = datacenter
        self.clock = clock
        self.inventory = Inventory()
        self.sessions = Sessions(spec.username, spec.password, clock)
        self.faults = Faults()
        self.collectors = Collectors(self.inventory)
        self.permissions = Permissions(self.inventory)
        self.area_habits = HONEST
        self._specs = {vm.moref: known for vm, known in zip(datacenter.state.vms, spec.vms, strict=True)}
        self._refs: dict[str, Any] = {}
        manager = self.inventory.add(vim.TaskManager, "TaskManager", recentTask=[])
        self.tasks = Tasks(self.inventory, manager, self.faults, clock, spec.username)
        self.content = self._add_services()
        self.tree = Tree(self.inventory)
        self.rest = Rest(spec.username, spec.password, self._persona.rest_dialects)
        self._hosts: dict[str, Managed] = {}
        self._add_tree()
        self._add_datastores(self.tree.datacenter(FIRST)["datastore"])
        self._add_vms()
        self._add_crowds()
        self.permissions.show()
        datacenter.watch(lambda moref: self.refresh(self.inventory.get(self._refs[moref])))

    def stop(self) -> None:
        """End what waits and what works."""
        self.faults.stop()
        self.collectors.stop()
        self.tasks.join()

    def machine(self, vm: Managed) -> Machine:
        """The machine behind a VM."""
        return self.datacenter.machine(vm.moref)

    def forget(self) -> None:
        """Lose what a manager only has in memory: sessions, collectors, views, and which tasks there were."""
        self.sessions.expire()
        self.rest.forget()
        self.collectors.forget()
        self.tasks.forget()

    def task(self, method: str, vm: Managed, work: Callable[[], Any], half: Callable[[], Any] = _nothing) -> Any:
        """Begin a task on a VM; what it changed is shown before the task ends, well or ill.

        Args:
            method: its name on the wire.
            vm: what it is about.
            work: what it does.
            half: what it does instead when ``What.HALF`` was ordered; by default nothing.
        """

        def changing(work: Callable[[], Any]) -> Any:
            try:
                result = work()
            finally:
                self.refresh(vm)
            return self._refs[result.moref] if hasattr(result, "moref") else None

        return self.tasks.begin(method, vm, partial(changing, work), partial(changing, half))

    def refresh(self, vm: Managed) -> None:
        """Show a VM as it is now."""
        machine = self.machine(vm)
        with machine.still, self.inventory.changed:
            state, spec = machine.state, self._specs[machine.state.moref]
            self._sync_snapshots(vm, machine)
            tree = render.snapshots(state, self._refs)
            host = self._hosts[state.host].ref
            names = {
                state.datastore,
                *(link.datastore or disk.datastore for disk in state.disks for link in disk.links),
            }
            self.inventory.set(
                vm,
                config=None if spec.lost else render.config(state, spec, self._refs),
                snapshot=None if spec.lost else tree,
                rootSnapshot=[] if tree is None else [tree.rootSnapshotList[0].snapshot],
                datastore=[self._refs[name] for name in sorted(names)],
                runtime=render.runtime(state, host, spec.connection),
                guest=None if spec.lost else render.guest(state, spec),
                summary=render.summary(state, spec, vm.ref, host),
            )

    def _sync_snapshots(self, vm: Managed, machine: Machine) -> None:
        """Make the snapshots' own objects those that the state has; chains under them may have changed shape."""
        state, spec = machine.state, self._specs[machine.state.moref]
        names = [snapshot.moref for snapshot in state.snapshots]
        for known in self.inventory.all_of(vim.vm.Snapshot):
            if known.properties["vm"] == vm.ref and known.moref not in names:
                self.inventory.remove(known.ref)
        refs = [vim.vm.Snapshot(name, None) for name in names]
        self._refs.update(zip(names, refs, strict=True))
        for number, snapshot in enumerate(state.snapshots):
            properties = {
                "vm": vm.ref,
                "config": render.config(state, spec, self._refs, snapshot),
                "childSnapshot": [
                    ref for ref, other in zip(refs, state.snapshots, strict=True) if other.parent == snapshot.moref
                ],
            }
            known_one = self.inventory.find(refs[number])
            if known_one is None:
                self.inventory.add(vim.vm.Snapshot, snapshot.moref, **properties)
            else:
                self.inventory.set(known_one, **properties)

    def _add_services(self) -> Any:
        add = self.inventory.add
        root = add(vim.Folder, ROOT, name="Datacenters", childType=["vim.Datacenter"], childEntity=[])
        about = self._persona.about(self.datacenter.state.instance_uuid)
        content = vim.ServiceInstanceContent(
            about=about,
            rootFolder=root.ref,
            propertyCollector=add(vmodl.query.PropertyCollector, OWN_COLLECTOR).ref,
            viewManager=add(vim.view.ViewManager, "ViewManager").ref,
            sessionManager=add(vim.SessionManager, "SessionManager").ref,
            authorizationManager=self.permissions.ref,
            searchIndex=add(vim.SearchIndex, "SearchIndex").ref,
            taskManager=vim.TaskManager("TaskManager", None),
        )
        add(vim.ServiceInstance, "ServiceInstance", content=content, capability=None)
        return content

    def _add_tree(self) -> None:
        """The first datacenter, with a cluster of two hosts; a host that is alone is its own."""
        add, put = self.inventory.add, self.inventory.set
        folders = self.tree.datacenter(FIRST)
        cluster = add(vim.ClusterComputeResource, "domain-c8", name="C0", parent=folders["host"].ref)
        pool = add(vim.ResourcePool, POOL, name="Resources", parent=cluster.ref, owner=cluster.ref, vm=[])
        for number, name in enumerate(HOSTS[:1] if self._persona.esxi else HOSTS):
            ref = f"host-{10 + number}"
            host = add(vim.HostSystem, ref, name=name, parent=cluster.ref, vm=[], datastore=[], network=[])
            put(host, summary=self._persona.host_summary(host.ref, name))
            self._hosts[name] = host
        hosts = [host.ref for host in self._hosts.values()]
        put(cluster, host=hosts, resourcePool=pool.ref, datastore=[])
        put(folders["host"], childEntity=[cluster.ref])

    def _add_datastores(self, folder: Managed) -> None:
        about = self._persona.about(self.datacenter.state.instance_uuid)
        for host in self._hosts.values():
            self.inventory.set(host, config=hostluns.config(self.datacenter.state, host.ref, about))
        refs = []
        for known in self.datacenter.state.datastores:
            managed = self.inventory.add(
                vim.Datastore,
                known.moref,
                name=known.name,
                parent=folder.ref,
                info=self._datastore_info(known),
                host=[
                    vim.Datastore.HostMount(key=host.ref, mountInfo=_mounted(known)) for host in self._hosts.values()
                ],
                vm=[],
                overallStatus="green",
            )
            refs.append(managed.ref)
            self._refs[known.name] = managed.ref
            self.inventory.set(managed, summary=self._datastore_summary(known, managed.ref))
        self.inventory.set(folder, childEntity=refs)
        for host in self._hosts.values():
            self.inventory.set(host, datastore=refs)
        for holder in (vim.Datacenter("datacenter-2", None), vim.ClusterComputeResource("domain-c8", None)):
            self.inventory.set(self.inventory.get(holder), datastore=refs)

    def _datastore_info(self, known: DatastoreState) -> Any:
        common = {"name": known.name, "url": _url(known), "freeSpace": self._capacity(known) // 2}
        limits = {"maxFileSize": 64 * TiB, "maxVirtualDiskCapacity": 62 * TiB, "maxMemoryFileSize": 64 * TiB}
        if not known.version:
            nas = vim.host.NasVolume(
                type="NFS",
                name=known.name,
                capacity=self._capacity(known),
                remoteHost=_NFS_HOST,
                remotePath=f"/export/{known.name}",
                remoteHostNames=[_NFS_HOST],
            )
            return vim.host.NasDatastoreInfo(**common, **limits, nas=nas)
        extents = [vim.host.ScsiDisk.Partition(diskName=f"naa.{lun.wwn}", partition=1) for lun in known.luns]
        volume = vim.host.VmfsVolume(
            type="VMFS",
            name=known.name,
            capacity=self._capacity(known),
            blockSizeMb=max(_BLOCK_MIB, known.block_size_bytes // MiB),
            maxBlocks=63963136,
            majorVersion=known.version,
            version=_VMFS_VERSIONS[known.version],
            uuid=known.uuid,
            extent=extents,
            vmfsUpgradable=False,
            local=False,
        )
        return vim.host.VmfsDatastoreInfo(**common, **limits, vmfs=volume)

    def _datastore_summary(self, known: DatastoreState, ref: Any) -> Any:
        return vim.Datastore.Summary(
            datastore=ref,
            name=known.name,
            url=_url(known),
            capacity=self._capacity(known),
            freeSpace=self._capacity(known) // 2,
            accessible=True,
            multipleHostAccess=True,
            type=self._spec_of(known).shown_as or ("VMFS" if known.version else "NFS"),
            maintenanceMode="normal",
        )

    def _capacity(self, known: DatastoreState) -> int:
        return self._spec_of(known).lun_size_bytes * max(1, len(known.luns))

    def _spec_of(self, known: DatastoreState) -> DatastoreSpec:
        return next(spec for spec in self.datacenter.state.spec.datastores if spec.name == known.name)

    def _add_vms(self) -> None:
        pool = vim.ResourcePool(POOL, None)
        refs = []
        for machine in self.datacenter.machines:
            state, spec = machine.state, self._specs[machine.state.moref]
            managed = self.inventory.add(
                vim.VirtualMachine,
                state.moref,
                name=state.name,
                network=[],
                resourcePool=pool,
                capability=render.capability(),
                overallStatus="green",
                guestHeartbeatStatus="green",
                disabledMethod=[],
                recentTask=[],
            )
            self._refs[state.moref] = managed.ref
            refs.append(managed.ref)
            self.tree.put(self.tree.home(spec.datacenter, state.inventory_folder, spec.vapp), [managed])
            for tag in spec.tags:
                self.rest.attach(tag, "VirtualMachine", state.moref)
            self.refresh(managed)
        for name, host in self._hosts.items():
            there = [ref for ref in refs if self.machine(self.inventory.get(ref)).state.host == name]
            self.inventory.set(host, vm=there)
        self.inventory.set(self.inventory.get(pool), vm=refs)
        for known in self.datacenter.state.datastores:
            users = [ref for ref in refs if self._refs[known.name] in self.inventory.get(ref).properties["datastore"]]
            self.inventory.set(self.inventory.get(self._refs[known.name]), vm=users)

    def _add_crowds(self) -> None:
        for number, crowd in enumerate(self.datacenter.state.spec.crowds):
            homes: dict[str, list[Managed]] = {}
            for extra in crowds.members(crowd, number, self._refs[crowd.datastore], self._hosts[HOSTS[0]].ref):
                managed = self.inventory.add(vim.VirtualMachine, extra.moref, **extra.properties)
                homes.setdefault(extra.folder, []).append(managed)
                for tag in crowd.tags:
                    self.rest.attach(tag, "VirtualMachine", extra.moref)
            for folder, vms in homes.items():
                self.tree.put(self.tree.home(FIRST, folder), vms)


def _url(known: DatastoreState) -> str:
    return f"ds:///vmfs/volumes/{known.uuid or known.name}/"


def _mounted(known: DatastoreState) -> Any:
    path = f"/vmfs/volumes/{known.uuid or known.name}"
    return vim.host.MountInfo(path=path, accessMode="readWrite", mounted=True, accessible=True)
