package main

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/types"
)

// world is what the test wants the manager to have.
type world struct {
	Username, Password, InstanceUUID string
	Datastores                       []datastore
	VMs                              []machine
}

type datastore struct {
	Name, UUID, Version string
	Capacity            int64
	Extents             []string // canonical names of its LUNs; none: an NFS export
}

type machine struct {
	Name, Folder, VMX, UUID, InstanceUUID string
	HostName, IP                          string
	PoweredOn, Tools, ChangeTracking      bool
	Template                              bool
	Connection                            string // as on the wire; "": connected
	Disks                                 []disk
	Snapshots                             []string // names of its owner's, oldest first
	Tags                                  []string // category/name
	ManagedBy                             string   // extension/type; "": by people
}

type disk struct {
	Node, Label, Path, Mode, UUID string
	DeltaFormat                   string // what its snapshots' links are
	Key                           int32
	Bytes                         int64
	Thin                          bool
}

const (
	datacenterName = "DC0"
	pciController  = 100
)

// build makes the inventory by calls of the simulator's API, as an administrator would.
func (l *lab) build(w *world, state string) error {
	ctx := context.Background()
	client, err := vim25.NewClient(ctx, l.service)
	if err != nil {
		return err
	}
	finder := find.NewFinder(client, false)
	center, err := finder.Datacenter(ctx, datacenterName)
	if err != nil {
		return err
	}
	folders, err := center.Folders(ctx)
	if err != nil {
		return err
	}
	finder.SetDatacenter(center)
	hosts, err := finder.HostSystemList(ctx, "*")
	if err != nil {
		return err
	}
	instance := simulator.Map.Get(vim25.ServiceInstance).(*simulator.ServiceInstance)
	instance.Content.About.InstanceUuid = w.InstanceUUID
	for _, d := range w.Datastores {
		if err := addDatastore(ctx, hosts, d, filepath.Join(state, d.Name)); err != nil {
			return fmt.Errorf("datastore %s: %w", d.Name, err)
		}
	}
	for _, m := range w.VMs {
		folder, err := subfolder(ctx, folders.VmFolder, m.Folder)
		if err == nil {
			err = l.addMachine(ctx, client, folder, hosts[0], m, state)
		}
		if err != nil {
			return fmt.Errorf("virtual machine %s: %w", m.Name, err)
		}
	}
	return nil
}

// addDatastore mounts a directory of ours on all hosts, and shows it as what it stands for.
func addDatastore(ctx context.Context, hosts []*object.HostSystem, d datastore, directory string) error {
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return err
	}
	var added *object.Datastore
	for _, host := range hosts {
		system, err := host.ConfigManager().DatastoreSystem(ctx)
		if err != nil {
			return err
		}
		if added, err = system.CreateLocalDatastore(ctx, d.Name, directory); err != nil {
			return err
		}
	}
	known := simulator.Map.Get(added.Reference()).(*simulator.Datastore)
	common := *known.Info.GetDatastoreInfo() // its URL stays the directory: the simulator keeps files there
	common.FreeSpace = d.Capacity / 2
	volume := types.HostFileSystemVolume{Type: "VMFS", Name: d.Name, Capacity: d.Capacity}
	if len(d.Extents) == 0 {
		volume.Type = "NFS"
		known.Info = &types.NasDatastoreInfo{DatastoreInfo: common, Nas: &types.HostNasVolume{
			HostFileSystemVolume: volume, RemoteHost: "nfs.lab", RemotePath: "/export/" + d.Name,
		}}
	} else {
		major, _ := strconv.Atoi(strings.Split(d.Version, ".")[0])
		vmfs := &types.HostVmfsVolume{
			HostFileSystemVolume: volume, BlockSizeMb: 1, MajorVersion: int32(major), Version: d.Version, Uuid: d.UUID,
		}
		for _, name := range d.Extents {
			vmfs.Extent = append(vmfs.Extent, types.HostScsiDiskPartition{DiskName: name, Partition: 1})
		}
		known.Info = &types.VmfsDatastoreInfo{DatastoreInfo: common, Vmfs: vmfs}
	}
	known.Summary.Type = volume.Type
	known.Summary.Url = "ds:///vmfs/volumes/" + d.UUID + "/"
	known.Summary.Capacity, known.Summary.FreeSpace = d.Capacity, d.Capacity/2
	known.Summary.MultipleHostAccess = types.NewBool(true)
	return nil
}

// subfolder is a folder by its path below another; what is not there yet is made.
func subfolder(ctx context.Context, top *object.Folder, names string) (*object.Folder, error) {
	for _, name := range strings.Split(names, "/") {
		if name == "" {
			continue
		}
		children, err := top.Children(ctx)
		if err != nil {
			return nil, err
		}
		var next *object.Folder
		for _, child := range children {
			found, ok := child.(*object.Folder)
			if ok && simulator.Map.Get(found.Reference()).(*simulator.Folder).Name == name {
				next = found
			}
		}
		if next == nil {
			if next, err = top.CreateFolder(ctx, name); err != nil {
				return nil, err
			}
		}
		top = next
	}
	return top, nil
}

func (l *lab) addMachine(
	ctx context.Context, client *vim25.Client, folder *object.Folder, host *object.HostSystem, m machine, state string,
) error {
	for _, d := range m.Disks {
		where := new(object.DatastorePath)
		if !where.FromString(d.Path) {
			return fmt.Errorf("%q is no datastore path", d.Path)
		}
		if err := os.MkdirAll(filepath.Join(state, where.Datastore, path.Dir(where.Path)), 0o755); err != nil {
			return err
		}
	}
	pool, err := host.ResourcePool(ctx)
	if err != nil {
		return err
	}
	created, err := folder.CreateVM(ctx, configuration(m), pool, host)
	if err != nil {
		return err
	}
	info, err := created.WaitForResult(ctx, nil)
	if err != nil {
		return err
	}
	vm := object.NewVirtualMachine(client, info.Result.(types.ManagedObjectReference))
	live := simulator.Map.Get(vm.Reference()).(*simulator.VirtualMachine)
	live.Capability.ChangeTrackingSupported = types.NewBool(true)
	live.Runtime.ConsolidationNeeded = types.NewBool(false)
	mendLayout(live)
	l.adopt(live, m.Disks)
	if m.PoweredOn {
		on, err := vm.PowerOn(ctx)
		if err != nil {
			return err
		}
		if err := on.Wait(ctx); err != nil {
			return err
		}
	}
	if m.Template {
		if err := vm.MarkAsTemplate(ctx); err != nil {
			return err
		}
	}
	if m.Connection != "" {
		live.Runtime.ConnectionState = types.VirtualMachineConnectionState(m.Connection)
	}
	for _, name := range m.Snapshots {
		request := &types.CreateSnapshot_Task{This: vm.Reference(), Name: name, Description: "by its owner"}
		if made := l.createSnapshot(live, request); made.fault != nil {
			return fmt.Errorf("snapshot %s: %T", name, made.fault)
		}
	}
	return nil
}

func configuration(m machine) types.VirtualMachineConfigSpec {
	running := "guestToolsNotRunning"
	if m.Tools && m.PoweredOn {
		running = "guestToolsRunning"
	}
	options := []types.BaseOptionValue{
		&types.OptionValue{Key: "nvram", Value: m.Name + ".nvram"},
		&types.OptionValue{Key: "extendedConfigFile", Value: m.Name + ".vmxf"},
		&types.OptionValue{Key: "SET.guest.toolsRunningStatus", Value: running},
	}
	if m.HostName != "" {
		options = append(options, &types.OptionValue{Key: "SET.guest.hostName", Value: m.HostName})
	}
	if m.IP != "" {
		options = append(options, &types.OptionValue{Key: "SET.guest.ipAddress", Value: m.IP})
	}
	spec := types.VirtualMachineConfigSpec{
		Name:                  m.Name,
		Uuid:                  m.UUID,
		InstanceUuid:          m.InstanceUUID,
		GuestId:               string(types.VirtualMachineGuestOsIdentifierOther3xLinux64Guest),
		Files:                 &types.VirtualMachineFileInfo{VmPathName: m.VMX},
		ChangeTrackingEnabled: types.NewBool(m.ChangeTracking),
		ExtraConfig:           options,
	}
	if by := strings.SplitN(m.ManagedBy, "/", 2); len(by) == 2 {
		spec.ManagedBy = &types.ManagedByInfo{ExtensionKey: by[0], Type: by[1]}
	}
	controllers := map[string]int32{}
	var devices object.VirtualDeviceList
	for _, d := range m.Disks {
		bus := strings.SplitN(d.Node, "-", 2)[0]
		if _, ok := controllers[bus]; !ok {
			device := controller(bus)
			controllers[bus] = device.GetVirtualDevice().Key
			devices = append(devices, device)
		}
		devices = append(devices, virtualDisk(d, controllers[bus]))
	}
	spec.DeviceChange, _ = devices.ConfigSpec(types.VirtualDeviceConfigSpecOperationAdd)
	return spec
}

func controller(bus string) types.BaseVirtualDevice {
	number, _ := strconv.Atoi(strings.TrimLeft(bus, "abcdefghijklmnopqrstuvwxyz"))
	base := types.VirtualController{
		VirtualDevice: types.VirtualDevice{ControllerKey: pciController}, BusNumber: int32(number),
	}
	switch strings.TrimRight(bus, "0123456789") {
	case "sata":
		base.Key = 15000 + int32(number)
		return &types.VirtualAHCIController{VirtualSATAController: types.VirtualSATAController{VirtualController: base}}
	case "nvme":
		base.Key = 31000 + int32(number)
		return &types.VirtualNVMEController{VirtualController: base}
	}
	base.Key = 1000 + int32(number)
	return &types.ParaVirtualSCSIController{VirtualSCSIController: types.VirtualSCSIController{
		VirtualController: base, SharedBus: types.VirtualSCSISharingNoSharing, ScsiCtlrUnitNumber: 7,
	}}
}

func virtualDisk(d disk, controllerKey int32) *types.VirtualDisk {
	unit, _ := strconv.Atoi(d.Node[strings.IndexByte(d.Node, '-')+1:])
	number := int32(unit)
	return &types.VirtualDisk{
		VirtualDevice: types.VirtualDevice{
			Key:           d.Key,
			ControllerKey: controllerKey,
			UnitNumber:    &number,
			DeviceInfo:    &types.Description{Label: d.Label},
			Backing: &types.VirtualDiskFlatVer2BackingInfo{
				VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{FileName: d.Path},
				DiskMode:                     d.Mode,
				ThinProvisioned:              types.NewBool(d.Thin),
				Uuid:                         d.UUID,
				Sharing:                      string(types.VirtualDiskSharingSharingNone),
			},
		},
		CapacityInKB:    d.Bytes >> 10,
		CapacityInBytes: d.Bytes,
	}
}
